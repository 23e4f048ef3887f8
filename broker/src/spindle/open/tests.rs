//! First starts, replacements, and what is refused.

use super::*;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("howdah-open-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn two_disks() -> Site {
    let text = "[site]\nname = \"x\"\n[[node]]\nname = \"a\"\naddress = \"127.0.0.1\"\n\
        disk = [{ path = \"one\", use = \"1GiB\", journal = \"32MiB\" }, { path = \"two\", use = \"1GiB\", journal = \"32MiB\" }]\n";
    site::parse(text, "x.toml").unwrap()
}

fn open(scratch: &Scratch) -> Result<Vec<Superblock>, Fault> {
    let site = two_disks();
    let (opened, _) = open_all(&site, 0, places(&site.nodes[0], &scratch.0, &[])?)?;
    Ok(opened
        .into_iter()
        .map(|it| it.recovered.superblock)
        .collect())
}

#[test]
fn an_empty_node_is_founded_once() {
    let scratch = Scratch::new("once");
    let first = open(&scratch).unwrap();
    assert!(
        first[0].meta && !first[1].meta,
        "the first disk of the site file is the meta disk"
    );
    assert_eq!(first[0].site, first[1].site);
    assert!(first[0].site != SiteUuid::default());
    let second = open(&scratch).unwrap();
    assert_eq!(
        (first[0].site, first[0].disk),
        (second[0].site, second[0].disk),
        "the second start founds nothing"
    );
    assert_eq!(first[1].disk, second[1].disk);
}

#[test]
fn a_blank_data_disk_is_a_replacement() {
    let scratch = Scratch::new("data");
    let before = open(&scratch).unwrap();
    fs::remove_dir_all(scratch.0.join("two")).unwrap();
    let after = open(&scratch).unwrap();
    assert_eq!(
        (before[0].disk, before[0].site),
        (after[0].disk, after[0].site)
    );
    assert_eq!(
        (after[1].site, after[1].incarnation),
        (before[0].site, before[0].incarnation)
    );
    assert_ne!(
        before[1].disk, after[1].disk,
        "another disk has another name"
    );
}

#[test]
fn a_blank_meta_disk_founds_nothing_beside_data() {
    let scratch = Scratch::new("meta");
    open(&scratch).unwrap();
    fs::remove_dir_all(scratch.0.join("one")).unwrap();
    let fault = open(&scratch).unwrap_err();
    assert!(
        matches!(fault, Fault::MetaLost { .. }) && fault.protects(),
        "{fault}"
    );
    assert!(
        fault.to_string().contains("two") && fault.to_string().contains("howdah adopt"),
        "{fault}"
    );
    assert!(!scratch.0.join("one").exists(), "nothing was made");
}

#[test]
fn a_disk_that_is_away_leaves_the_others_and_the_meta_disk_is_waited_for() {
    let text = "[site]\nname = \"x\"\nsecret = { file = \"x.key\" }\n[[node]]\naddress = \"127.0.0.1\"\n\
        disk = [{ serial = \"S1\", use = \"1GiB\", journal = \"32MiB\" }, { serial = \"S2\", use = \"1GiB\", journal = \"32MiB\" }]\n[appliance]\n";
    let site = site::parse(text, "x.toml").unwrap();
    let open = |scratch: &Scratch, disks: &[usize]| {
        let handed: Vec<HandedDisk> = disks
            .iter()
            .map(|at| HandedDisk {
                at: *at,
                root: scratch.0.join(at.to_string()),
                ring: scratch.0.join(format!("ring{at}")),
            })
            .collect();
        let places = places(&site.nodes[0], Path::new("nowhere"), &handed)?;
        let (opened, away) = open_all(&site, 0, places)?;
        let superblocks: Vec<_> = opened
            .into_iter()
            .map(|it| it.recovered.superblock)
            .collect();
        Ok::<_, Fault>((superblocks, away))
    };
    let scratch = Scratch::new("away");
    // Not the other one: it would found a site that the meta disk may hold already.
    let fault = open(&scratch, &[1]).unwrap_err();
    assert!(
        matches!(fault, Fault::MetaAway { .. }) && fault.protects(),
        "{fault}"
    );
    assert!(!scratch.0.join("1/SUPER.a").exists(), "nothing was made");
    let (both, away) = open(&scratch, &[0, 1]).unwrap();
    assert!(both[0].meta && both[0].journal_apart && away.is_empty());
    assert!(scratch.0.join("ring1").exists() && !scratch.0.join("1/journal").exists());
    let (one, away) = open(&scratch, &[0]).unwrap();
    assert_eq!((one.len(), one[0].disk), (1, both[0].disk));
    assert_eq!(away, ["serial S2"]);
    assert!(matches!(
        open(&scratch, &[1]).unwrap_err(),
        Fault::MetaAway { .. }
    ));
    assert!(matches!(
        open(&scratch, &[]).unwrap_err(),
        Fault::NotAPath(_)
    ));
    let (again, away) = open(&scratch, &[1, 0]).unwrap();
    assert_eq!(again[1].disk, both[1].disk, "back as it was");
    assert!(away.is_empty());
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let scratch = Scratch::new("foreign");
    fs::create_dir(scratch.0.join("one")).unwrap();
    fs::write(scratch.0.join("one/letters.txt"), "dear").unwrap();
    let fault = open(&scratch).unwrap_err();
    assert!(fault.to_string().contains("letters.txt"), "{fault}");
    assert_eq!(
        fs::read(scratch.0.join("one/letters.txt")).unwrap(),
        b"dear"
    );
}

#[test]
fn a_making_that_was_cut_short_is_made_anew() {
    let scratch = Scratch::new("cut");
    fs::create_dir_all(scratch.0.join("one/ext")).unwrap();
    fs::write(scratch.0.join("one/journal"), [0; 4096]).unwrap();
    fs::write(scratch.0.join("one/SUPER.a"), [0; 4096]).unwrap();
    open(&scratch).unwrap();
    // But two rotten superblocks beside extents are a disk that lost its name.
    for name in ["SUPER.a", "SUPER.b"] {
        fs::write(scratch.0.join("one").join(name), [7; 4096]).unwrap();
    }
    fs::create_dir_all(scratch.0.join("one/ext/00")).unwrap();
    fs::write(scratch.0.join("one/ext/00/00000000.e"), [0; 4096]).unwrap();
    assert!(
        open(&scratch)
            .unwrap_err()
            .to_string()
            .contains("superblock")
    );
}

#[test]
fn another_nodes_disk_is_refused() {
    let scratch = Scratch::new("other");
    let one = Scratch::new("other-too");
    open(&scratch).unwrap();
    open(&one).unwrap();
    fs::remove_dir_all(scratch.0.join("two")).unwrap();
    fs::rename(one.0.join("two"), scratch.0.join("two")).unwrap();
    assert!(matches!(
        open(&scratch).unwrap_err(),
        Fault::OtherIncarnation { .. }
    ));
}
