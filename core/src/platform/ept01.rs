//! ept01: one for each CPU, since each has MTRRs of its own.

use crate::machine::machine;
use crate::mem::Tables;
use crate::mem::{LOW_BYTES, PagePool, Registers, layout};
use crate::platform::iommu;
use umbra_ept::ept01::{Config, Ept01, MAX_HIDDEN, MAX_SMALL, Range, pages_needed};
use umbra_ept::mem::TablePages;
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

fn config<'a>(hidden: &'a [Range], void_hpa: u64, mtrrs: &'a Mtrrs) -> Config<'a> {
    Config {
        limit: limit(),
        hidden,
        void_hpa,
        mtrrs,
        caps: machine().ept,
        on_demand_pages: ON_DEMAND_PAGES,
        retype_pages: RETYPE_PAGES,
    }
}

/// All that is hidden.
fn with_registers(block: Range, registers: &Registers) -> heapless::Vec<Range, MAX_HIDDEN> {
    core::iter::once(block)
        .chain(registers.iter().copied())
        .collect()
}

/// How many pages one ept01 takes, wherever in RAM `hidden_bytes` bytes are
/// hidden from it at 2 MiB boundaries.
pub fn pages_for(mtrrs: &Mtrrs, hidden_bytes: u64) -> u64 {
    let block = Range {
        start: 0,
        end: hidden_bytes,
    };
    let hidden = with_registers(block, &Registers::new(iommu::registers()));
    match pages_needed(&config(&hidden, 0, mtrrs)) {
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
    let hidden = with_registers(block, &layout.registers);
    let config = config(&hidden, layout.void_page, mtrrs);
    let built = pages_needed(&config).and_then(|needed| {
        let run = pool.take(u64::from(needed));
        Ept01::build(&mut Tables, TablePages::new(run.base(), needed), &config)
    });
    match built {
        Ok(ept01) => ept01,
        Err(error) => panic!("ept01 cannot be built: {error:?}"),
    }
}
