//! What scenarios say of a follower: its questions, and its leader's answers.

use model::window::{Claim, Fact};
use model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, WallMs};

use super::World;
use super::text::Words;
use crate::Ticket;
use crate::partition::{Answer, AnswerBody, Ask, CopiedBatch, Effect, Input};

/// "3..5@7" is a batch of epoch 7 at offsets 3 and 4; "3..5@7:9/0" has producer 9 and sequence 0.
fn batch(word: &str) -> CopiedBatch {
    let (range, rest) = word.split_once('@').unwrap();
    let (from, to) = range.split_once("..").unwrap();
    let (epoch, claim) = match rest.split_once(':') {
        Some((epoch, claim)) => (epoch, Some(claim)),
        None => (rest, None),
    };
    let base_offset = Offset(from.parse().unwrap());
    let last_offset_delta = (to.parse::<i64>().unwrap() - base_offset.0 - 1) as i32;
    let fact = claim.map(|claim| {
        let (pid, seq) = claim.split_once('/').unwrap();
        Fact {
            base_offset,
            claim: Claim {
                pid: ProducerId(pid.parse().unwrap()),
                epoch: ProducerEpoch(0),
                first_seq: seq.parse().unwrap(),
                last_delta: last_offset_delta,
            },
            max_ts: WallMs(0),
            transactional: false,
            marker: None,
        }
    });
    CopiedBatch {
        base_offset,
        last_offset_delta,
        leader_epoch: LeaderEpoch(epoch.parse().unwrap()),
        bytes: 100,
        fact,
    }
}

/// The leader answers what was asked just now, or what `to=OFFSET/EPOCH` says was asked once.
pub(super) fn answer(world: &mut World, words: &Words<'_>) -> Vec<Effect> {
    let asked = world.machine.ask(world.now);
    let (mut epoch, mut fetch_off, mut last_epoch) =
        (LeaderEpoch::NONE, Offset(-1), LeaderEpoch::NONE);
    if let Some(Ask { fetch, .. }) = asked {
        (epoch, fetch_off, last_epoch) = (fetch.epoch, fetch.fetch_off, fetch.last_epoch);
    }
    if let Some((offset, last)) = words.value("to").and_then(|it| it.split_once('/')) {
        (fetch_off, last_epoch) = (
            Offset(offset.parse().unwrap()),
            LeaderEpoch(last.parse().unwrap()),
        );
    }
    if let Some(word) = words.number("epoch") {
        epoch = LeaderEpoch(word as i32);
    }
    let body = if words.has("refused") {
        AnswerBody::Refused
    } else if let Some((epoch, end)) = words.value("diverging").and_then(|it| it.split_once('@')) {
        AnswerBody::Diverging {
            epoch: LeaderEpoch(epoch.parse().unwrap()),
            end: Offset(end.parse().unwrap()),
        }
    } else {
        let list = words.value("batches").into_iter();
        let mut batches: Vec<CopiedBatch> = list.flat_map(|it| it.split(',')).map(batch).collect();
        if let Some(bytes) = words.number("bytes") {
            batches
                .iter_mut()
                .for_each(|batch| batch.bytes = bytes as u32);
        }
        world.copies.clone_from(&batches);
        AnswerBody::Batches {
            ticket: Ticket(0),
            high_watermark: words.offset("hw"),
            log_start: words.offset("log-start"),
            more: words.has("more"),
            batches: batches.into(),
        }
    };
    world.tell(Input::Answer(Box::new(Answer {
        epoch,
        fetch_off,
        last_epoch,
        body,
    })))
}

pub(super) fn answers(world: &mut World, words: &Words<'_>) -> Vec<Effect> {
    let bytes = words.number("bytes").unwrap_or(1_000);
    let mut last = Vec::new();
    for _ in 0..words.0[0].parse::<u32>().unwrap() {
        let end = world.machine.end.0;
        let mut text = format!("hw={end} bytes={bytes} batches={end}..{}@1", end + 1);
        if words.has("more") {
            text += " more";
        }
        last = answer(world, &Words(text.split(' ').collect()));
    }
    // All were alike, so one says enough.
    last
}

pub(super) fn ask_text(ask: Option<Ask>) -> String {
    let Some(Ask {
        leader,
        fetch,
        bytes_max,
    }) = ask
    else {
        return "nobody".to_owned();
    };
    let leader = char::from(b'a' + u8::try_from(leader.0 - 1).unwrap());
    let what = match bytes_max {
        0 => "report".to_owned(),
        bytes => format!("{} KiB", bytes / 1024),
    };
    format!(
        "{leader} epoch={} from={} durable={} last={} log-start={} {what}",
        fetch.epoch.0,
        fetch.fetch_off.0,
        fetch.durable_off.0,
        fetch.last_epoch.0,
        fetch.log_start.0
    )
}
