//! Random bodies of any shape, canonical: kafka-protocol must read them whole and write the same bytes again.

use super::Rng;
use crate::schema::{Field, Shape};

/// What to fill arrays with.
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    /// One to three elements.
    Few,
    /// Every array empty but the n-th met, which has that many elements of the least size, all their arrays empty.
    Many { nth: usize, count: u32 },
}

pub(crate) struct Generator<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) version: i16,
    pub(crate) flexible: bool,
    pub(crate) rows: Rows,
    pub(crate) arrays_met: usize,
    pub(crate) out: Vec<u8>,
}

impl Generator<'_> {
    pub(crate) fn fields(&mut self, fields: &'static [Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.in_version(version)) {
            self.shape(field.shape());
        }
        if self.flexible {
            self.out.push(0);
        }
    }

    fn shape(&mut self, shape: &'static Shape) {
        match shape {
            // One byte may be a bool, which reads back as 0 or 1 only.
            Shape::Fixed(1) => {
                let bit = (self.rng.next() & 1) as u8;
                self.out.push(bit);
            }
            Shape::Fixed(width) => {
                for _ in 0..*width {
                    let byte = self.rng.next() as u8;
                    self.out.push(byte);
                }
            }
            Shape::Text => {
                let text = match self.rows {
                    Rows::Few => self.rng.text(),
                    Rows::Many { .. } => Default::default(),
                };
                if self.flexible {
                    self.uvarint(text.len() as u32 + 1);
                } else {
                    self.out.extend((text.len() as i16).to_be_bytes());
                }
                self.out.extend(text.as_bytes());
            }
            Shape::Blob => {
                let blob = match self.rows {
                    Rows::Few => self.rng.blob(),
                    Rows::Many { .. } => Default::default(),
                };
                self.count(blob.len() as u32);
                self.out.extend(blob);
            }
            Shape::List(inner) => self.array(|generator| generator.shape(inner)),
            Shape::Rows(fields) => self.array(|generator| generator.fields(fields)),
        }
    }

    fn array(&mut self, mut element: impl FnMut(&mut Self)) {
        let nth = self.arrays_met;
        self.arrays_met += 1;
        match self.rows {
            Rows::Few => {
                let count = 1 + self.rng.below(3) as u32;
                self.count(count);
                (0..count).for_each(|_| element(self));
            }
            Rows::Many { nth: wanted, count } if nth == wanted => {
                self.count(count);
                (0..count).for_each(|_| element(self));
            }
            // An array around the wanted one has to have an element.
            Rows::Many { nth: wanted, .. } if nth < wanted => {
                let before = self.out.len();
                self.count(1);
                element(self);
                if self.arrays_met <= wanted {
                    self.out.truncate(before);
                    self.count(0);
                }
            }
            Rows::Many { .. } => self.count(0),
        }
    }

    fn count(&mut self, count: u32) {
        if self.flexible {
            self.uvarint(count + 1);
        } else {
            self.out.extend(count.to_be_bytes());
        }
    }

    fn uvarint(&mut self, value: u32) {
        model::varint::write_u64(&mut self.out, u64::from(value));
    }
}
