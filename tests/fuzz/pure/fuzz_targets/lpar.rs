// SPDX-License-Identifier: GPL-2.0

//! The life of a binding that several devices share, in any order of events, against one that keeps
//! every share in a list.

#![no_main]

#[allow(dead_code, reason = "this target needs a part of it")]
#[path = "../../../../src/pure/mod.rs"]
mod pure;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pure::{
    lpid::{Guest, Lpid},
    shared_value::{Left, Share, SharedValue},
};

#[derive(Arbitrary, Debug)]
enum Event {
    /// A device is opened: it joins, or begins.
    Open,
    /// The share of a device, by number, is given back.
    Close(u8),
    Revoke,
    /// What was retained is tried again: does it end?
    Settle(bool),
    /// The next end fails.
    Fail,
    Guest {
        hv: bool,
        radix: bool,
        lpid: u64,
    },
}

#[derive(Default)]
struct Model {
    /// Shares with the value that they are of.
    shares: Vec<(Share, u32)>,
    current: Option<u32>,
    retained: Option<u32>,
    next: u32,
    fail: bool,
}

fn end(shared: &mut SharedValue<u32>, model: &mut Model, value: u32) {
    if std::mem::take(&mut model.fail) {
        shared.retain(value);
        model.retained = Some(value);
    }
}

fn step(shared: &mut SharedValue<u32>, model: &mut Model, event: &Event) {
    match *event {
        Event::Open => match (model.current, model.retained) {
            (Some(value), _) => {
                let share = shared.join().expect("a held value is joined");
                model.shares.push((share, value));
            }
            (None, Some(_)) => {
                assert!(shared.join().is_none() && shared.begin(model.next).is_err())
            }
            (None, None) => {
                assert!(shared.join().is_none());
                model.next += 1;
                let share = shared.begin(model.next).expect("nothing is held");
                model.current = Some(model.next);
                model.shares.push((share, model.next));
            }
        },
        Event::Close(number) => {
            if model.shares.is_empty() {
                return;
            }
            let (share, value) = model
                .shares
                .swap_remove(usize::from(number) % model.shares.len());
            let others = model.shares.iter().any(|(_, other)| *other == value);
            let wanted = match model.current {
                Some(current) if current == value && others => Left::Others,
                Some(current) if current == value => Left::Last(value),
                _ => Left::Revoked,
            };
            let left = shared.leave(share);
            assert_eq!(left, wanted);
            if let Left::Last(value) = left {
                model.current = None;
                end(shared, model, value);
            }
        }
        Event::Revoke => {
            let revoked = shared.revoke();
            assert_eq!(revoked, model.current.take());
            if let Some(value) = revoked {
                end(shared, model, value);
            }
        }
        Event::Settle(ends) => {
            let retained = shared.take_retained();
            assert_eq!(retained, model.retained.take());
            if let Some(value) = retained.filter(|_| !ends) {
                shared.retain(value);
                model.retained = Some(value);
            }
        }
        Event::Fail => model.fail = true,
        Event::Guest { hv, radix, lpid } => {
            let found = Lpid::of(Guest { hv, radix, lpid });
            assert_eq!(found.is_ok(), hv && radix && (1..=4095).contains(&lpid));
            assert!(found.map_or_else(
                |unfit| !unfit.to_string().is_empty(),
                |found| u64::from(found.get()) == lpid
            ));
        }
    }
}

fuzz_target!(|events: Vec<Event>| {
    let mut shared = SharedValue::new();
    let mut model = Model::default();
    for event in &events {
        step(&mut shared, &mut model, event);
        assert_eq!(shared.held().copied(), model.current);
        assert_eq!(shared.retained().copied(), model.retained);
    }
});
