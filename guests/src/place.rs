//! Moving modules and kernel file out of the way, before anything is loaded.
//!
//! The boot loader placed them without knowing where L1's kernel belongs. What
//! lies well stays; the rest goes as high as it can below 4 GiB. The moves are
//! planned as a whole before the first byte is copied, so a handover that does
//! not fit is refused with memory as it was.

use heapless::Vec;

use crate::error::Error;
use crate::module::MAX_MODULES;
use crate::phys::{PhysMemory, Region};
use crate::space::{ONE_MIB, Space, Want};

/// The modules and the kernel file.
const MAX_ITEMS: usize = MAX_MODULES + 1;

/// One thing that has to lie somewhere where it is not overwritten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    /// What it is, for the error.
    pub(crate) what: &'static str,
    /// Where it lies: before [`plan`] as the boot loader put it, after it
    /// where L1 finds it.
    pub(crate) region: Region,
    /// Alignment it needs, in bytes.
    pub(crate) align: u64,
}

/// The items of one handover.
pub(crate) type Items = Vec<Item, MAX_ITEMS>;

/// One copy to be made; the two places may overlap.
pub(crate) struct Move {
    from: u64,
    to: u64,
    len: u64,
}

/// Copies in the order in which they have to be made.
pub(crate) type Moves = Vec<Move, MAX_ITEMS>;

/// Makes the planned copies.
pub(crate) fn perform<M: PhysMemory>(mem: &mut M, moves: &Moves) -> Result<(), Error> {
    for m in moves {
        mem.copy_within(m.to, m.from, m.len)?;
    }
    Ok(())
}

/// Decides where each item will lie: where it touches neither another one nor
/// what is taken in `space`, at or below `last`. `items` then say so, and their
/// new places are taken. The copies are in an order in which none overwrites
/// an item that has still to be read.
///
/// # Errors
/// [`Error::DoesNotFit`], with nothing moved.
pub(crate) fn plan(space: &mut Space<'_>, items: &mut Items, last: u64) -> Result<Moves, Error> {
    let mut moves = Moves::new();
    let mut settled: Vec<bool, MAX_ITEMS> =
        items.iter().map(|i| lies_well(space, i, last)).collect();

    // Every round but the last settles at least one item.
    for _ in 0..=MAX_ITEMS {
        let mut progress = false;
        let mut stuck = None;
        for index in 0..items.len() {
            let (Some(item), Some(false)) = (items.get(index).copied(), settled.get(index)) else {
                continue;
            };
            let want = Want {
                len: item.region.len,
                align: item.align,
                first: ONE_MIB,
                last,
            };
            match free_place(space, items, index, &want) {
                Some(to) => {
                    let _ = moves.push(Move {
                        from: item.region.start,
                        to,
                        len: item.region.len,
                    });
                    if let Some(i) = items.get_mut(index) {
                        i.region.start = to;
                    }
                    if let Some(s) = settled.get_mut(index) {
                        *s = true;
                    }
                    progress = true;
                }
                None => stuck = Some(want.does_not_fit(item.what)),
            }
        }
        match stuck {
            None => break,
            Some(error) if !progress => return Err(error),
            Some(_) => {}
        }
    }
    for item in items.iter() {
        space.take(item.region)?;
    }
    Ok(moves)
}

fn lies_well(space: &Space<'_>, item: &Item, last: u64) -> bool {
    match item.region.last() {
        None => item.region.len == 0,
        Some(end) => {
            end <= last
                && item.region.start.is_multiple_of(item.align.max(1))
                && space.is_free(item.region)
        }
    }
}

/// The highest place that neither is taken nor holds another item as things
/// stand. It may overlap the item's own old place: the copy allows for that.
fn free_place(space: &Space<'_>, items: &Items, index: usize, want: &Want) -> Option<u64> {
    let mut taken: Vec<Region, 256> = Vec::new();
    taken.extend_from_slice(space.taken()).ok()?;
    for (i, other) in items.iter().enumerate() {
        if i != index && other.region.len != 0 {
            taken.push(other.region).ok()?;
        }
    }
    space
        .map()
        .highest_free(want.len, want.align, want.first, want.last, &taken)
}
