//! Table pages of L0's own: those of ept01 and ept02.

use umbra_arch::hpa::{OwnEntry, TablePage};

use crate::mem::pointer;

/// L0's table pages, for the EPT builders.
#[derive(Clone, Copy, Debug)]
pub struct Tables;

impl umbra_ept::mem::TableMemory for Tables {
    fn read(&self, table: TablePage, index: usize) -> OwnEntry {
        assert!(index < 512);
        // SAFETY: a `TablePage` is one of the pages that `TablePages::new` was told of,
        // which are L0's, mapped and aligned, and hold such entries; or it is nowhere,
        // which faults, since the address is not canonical.
        unsafe {
            pointer(table.raw())
                .cast::<OwnEntry>()
                .wrapping_add(index)
                .read_volatile()
        }
    }

    fn write(&mut self, table: TablePage, index: usize, value: OwnEntry) {
        assert!(index < 512);
        // SAFETY: as `read`; a volatile store is one store, and x86 keeps
        // stores in order.
        unsafe {
            pointer(table.raw())
                .cast::<OwnEntry>()
                .wrapping_add(index)
                .write_volatile(value)
        }
    }

    fn fill(&mut self, table: TablePage, value: OwnEntry) {
        // SAFETY: a whole page of L0's, as `read`; nothing can see the table
        // before the entry that names it, which is written later.
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rcx") 512u64 => _,
                inout("rdi") pointer(table.raw()) => _,
                in("rax") value.raw(),
                options(nostack, preserves_flags)
            );
        }
    }
}
