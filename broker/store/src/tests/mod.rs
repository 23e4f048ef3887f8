//! Tests of a whole disk in memory: an oracle that knows what was committed, and a disk whose power is cut.

mod compact;
mod counts;
mod cuts;
mod dump;
mod exercise;
mod freeing;
mod full;
mod hostile;
mod marks;
mod oracle;
mod reads;
mod restart;
mod scrub;
mod threads;
mod times;
mod verify;
mod world;
