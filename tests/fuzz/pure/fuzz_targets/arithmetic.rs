// SPDX-License-Identifier: GPL-2.0

//! Offsets, ranges, apertures and ATSD accesses, against the same rules in numbers that cannot
//! overflow.

#![no_main]

#[allow(dead_code, reason = "this target needs a part of it")]
#[path = "../../../../src/pure/mod.rs"]
mod pure;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pure::{
    aperture::{Aperture, GRANULE},
    atsd_registers::{registers, Atsd, ATSD_SIZE},
    cells,
    range::{RegionOffset, RegionRange, MAX_REGION_SIZE},
};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    offset: u64,
    len: u64,
    size: u64,
    base: u64,
    window: u32,
    bytes: &'a [u8],
    index: usize,
}

fn wide(value: u64) -> u128 {
    value.into()
}

fn ranges(input: &Input<'_>) {
    let start = RegionOffset::new(input.offset);
    let (at, len, size) = (wide(start.get()), wide(input.len), wide(input.size));
    assert_eq!(at, wide(input.offset) % wide(MAX_REGION_SIZE));

    let range = RegionRange::new(start, input.len, input.size);
    assert_eq!(range.is_some(), len != 0 && at + len <= size);
    let clipped = RegionRange::clipped(start, input.len, input.size);
    assert_eq!(clipped.is_some(), len != 0 && at < size);
    let Some(clipped) = clipped else { return };
    assert_eq!(wide(clipped.end()), (at + len).min(size));

    let mut next = clipped.start();
    // Small windows of a long range are many.
    for window in clipped.windows(input.window.into()).take(1000) {
        assert_eq!(window.start(), next);
        assert!(window.len() <= u64::from(input.window) && window.len() != 0);
        assert_eq!(
            window.start() / u64::from(input.window),
            (window.end() - 1) / u64::from(input.window)
        );
        next = window.end();
    }
    assert!(
        next == clipped.end()
            || input.window == 0
            || clipped.len() / u64::from(input.window) >= 998
    );

    let Ok(aperture) = Aperture::new(input.base, input.size) else {
        return;
    };
    // A range of the region is one of the aperture.
    assert!(wide(aperture.base()) + wide(clipped.end()) <= wide(input.base) + size);
    let end = (wide(input.offset) + len).min(wide(u64::MAX));
    let overlaps =
        len != 0 && wide(input.offset) < wide(input.base) + size && wide(input.base) < end;
    assert_eq!(aperture.overlaps(input.offset, input.len), overlaps);
}

fn apertures(input: &Input<'_>) {
    let (base, size) = (wide(input.base), wide(input.size));
    let granule = wide(GRANULE);
    let fit = base != 0
        && size != 0
        && base % granule == 0
        && size % granule == 0
        && base + size <= wide(u64::MAX)
        && size <= wide(MAX_REGION_SIZE);
    assert_eq!(Aperture::new(input.base, input.size).is_ok(), fit);
}

fn atsd(input: &Input<'_>) {
    let (base, size, at) = (wide(input.base), wide(input.size), wide(input.offset));
    let fit = at != 0
        && at % wide(ATSD_SIZE) == 0
        && at >= base
        && at + wide(ATSD_SIZE) <= base + size
        && base + size <= wide(u64::MAX);
    assert_eq!(
        Atsd::new(input.offset, input.base, input.size).is_some(),
        fit
    );

    let len = wide(input.len);
    let whole = len != 0 && at % 8 == 0 && len % 8 == 0 && at + len <= wide(ATSD_SIZE);
    let found = registers(input.offset, input.len);
    assert_eq!(found.is_some(), whole);
    if let Some(found) = found {
        let wanted = (input.offset..input.offset + input.len).step_by(8);
        assert!(found.eq(wanted));
    }
}

fn properties(input: &Input<'_>) {
    let bytes = input.bytes;
    assert_eq!(cells::cell(bytes).is_some(), bytes.len() == 4);
    assert_eq!(cells::wide(bytes).is_some(), bytes.len() == 8);
    assert_eq!(cells::wide_pair(bytes).is_some(), bytes.len() >= 16);
    let entry = wide(input.index as u64) * 8 + 8 <= wide(bytes.len() as u64);
    assert_eq!(cells::nth_wide(bytes, input.index).is_some(), entry);
    let list = cells::list(bytes).map(Iterator::count);
    assert_eq!(
        list,
        (!bytes.is_empty() && bytes.len() % 4 == 0).then_some(bytes.len() / 4)
    );
}

fuzz_target!(|input: Input<'_>| {
    ranges(&input);
    apertures(&input);
    atsd(&input);
    properties(&input);
});
