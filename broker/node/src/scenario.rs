//! Runs scenario texts against a machine. Steps are divided by `====`, commands from what is expected by `----`; a
//! command `site` begins a new world. `HOWDAH_UPDATE=1` writes the expectations anew, for a person to read.
#![allow(clippy::unwrap_used)]

/// A machine with what a text needs around it.
pub(crate) trait World {
    /// Begins, as the words behind `site` say.
    fn site(words: &Words<'_>) -> Self;
    /// Runs one command and says what came out, a line each.
    fn command(&mut self, verb: &str, words: &Words<'_>) -> String;
}

/// A command's words: `key=value`, or bare.
pub(crate) struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    pub(crate) const fn new(words: Vec<&'a str>) -> Self {
        Self(words)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn number<N: core::str::FromStr>(&self, key: &str) -> Option<N> {
        self.value(key)
            .map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value}")))
    }

    pub(crate) fn list(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.value(key)
            .into_iter()
            .flat_map(|value| value.split(','))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().copied()
    }

    /// The words without `=`.
    pub(crate) fn bare(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().copied().filter(|word| !word.contains('='))
    }

    pub(crate) fn first(&self) -> &'a str {
        self.bare().next().expect("the command names something")
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }
}

/// Runs the texts of a file below `src`.
pub(crate) fn run<W: World>(file: &str) {
    let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let update = std::env::var_os("HOWDAH_UPDATE").is_some();
    let mut world = None;
    let mut anew = Vec::new();
    for step in text.split("\n====\n") {
        let (commands, expected) = step
            .split_once("\n----\n")
            .unwrap_or((step.trim_end_matches("\n----").trim_end(), ""));
        let mut said = String::new();
        for line in commands
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let mut words = line.split_whitespace();
            let verb = words.next().unwrap();
            let words = Words(words.collect());
            match verb {
                "site" => world = Some(W::site(&words)),
                _ => {
                    said += &world
                        .as_mut()
                        .expect("a text begins with `site`")
                        .command(verb, &words)
                }
            }
        }
        if !update {
            assert_eq!(
                said.trim_end(),
                expected.trim_end(),
                "{file}, after\n{commands}"
            );
        }
        anew.push(format!("{}\n----\n{said}", commands.trim_end()));
    }
    if update {
        std::fs::write(&path, anew.join("====\n")).unwrap();
    }
}
