//! ept01: one for each CPU, since each has MTRRs of its own.

use crate::machine::machine;
use crate::mem::Tables;
use crate::mem::{LOW_BYTES, PagePool, Registers, layout};
use crate::platform::iommu;
use umbra_arch::Hpa;
use umbra_arch::hpa::{Identity, MAX_HIDDEN, Range, TablePages};
use umbra_ept::ept01::{Config, Ept01, MAX_SMALL, pages_needed};
use umbra_ept::mtrr::Mtrrs;

/// Table pages for what L1 touches above RAM, by the gibibyte: two for each.
const ON_DEMAND_PAGES: u32 = 16;
/// Table pages for large pages that a change of MTRRs splits, and two for each
/// APIC-access page of an L2 that runs on ept01.
const RETYPE_PAGES: u32 = 16 + 2 * MAX_SMALL as u32;

/// What is mapped from the start: RAM and the low 4 GiB.
fn limit() -> u64 {
    let width = 1u64 << machine().physical_address_bits.min(48);
    machine().ram_end.max(LOW_BYTES).min(width)
}

fn config<'a>(identity: &'a Identity, mtrrs: &'a Mtrrs) -> Config<'a> {
    Config {
        limit: limit(),
        identity,
        mtrrs,
        caps: machine().ept,
        on_demand_pages: ON_DEMAND_PAGES,
        retype_pages: RETYPE_PAGES,
    }
}

/// L1's memory with a block of it and registers hidden.
///
/// # Safety
/// As of [`Identity::new`].
unsafe fn identity(block: Range, registers: &Registers, void: Hpa) -> Identity {
    let hidden: heapless::Vec<Range, MAX_HIDDEN> = core::iter::once(block)
        .chain(registers.iter().copied())
        .collect();
    // SAFETY: the caller's promise.
    match unsafe { Identity::new(&hidden, void) } {
        Some(identity) => identity,
        None => panic!("ept01 has no room for what is hidden"),
    }
}

/// How many pages one ept01 takes, wherever in RAM `hidden_bytes` bytes are
/// hidden from it at 2 MiB boundaries.
pub fn pages_for(mtrrs: &Mtrrs, hidden_bytes: u64) -> u64 {
    let block = Range {
        start: 0,
        end: hidden_bytes,
    };
    // SAFETY: nothing is built of it.
    let void = unsafe { Hpa::new(0) };
    // SAFETY: as above.
    let identity = unsafe { identity(block, &Registers::new(iommu::registers()), void) };
    match pages_needed(&config(&identity, mtrrs)) {
        // At another place the range may cross one more GiB border.
        Ok(needed) => u64::from(needed) + 2,
        Err(error) => panic!("ept01 cannot be planned: {error:?}"),
    }
}

/// Builds ept01 with L0's memory hidden. The void is the block's last page.
pub fn build(pool: &mut PagePool, mtrrs: &Mtrrs) -> Ept01 {
    let layout = layout();
    let block = Range {
        start: layout.hidden_start,
        end: layout.hidden_start + layout.hidden_bytes,
    };
    // SAFETY: the layout is settled: the block is all that is L0's in RAM, with the
    // registers it is all that L0 uses, and the void is a page of it that L0 does not.
    let identity = unsafe { identity(block, &layout.registers, layout.void_page) };
    let config = config(&identity, mtrrs);
    let built = pages_needed(&config).and_then(|needed| {
        let run = pool.take(u64::from(needed));
        // SAFETY: the pages were taken for this alone.
        let pages = unsafe { TablePages::new(run.base().raw(), needed) };
        Ept01::build(&mut Tables, pages, &config)
    });
    match built {
        Ok(ept01) => ept01,
        Err(error) => panic!("ept01 cannot be built: {error:?}"),
    }
}
