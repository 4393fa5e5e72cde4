//! Table pages of L0's own: those of ept01 and ept02.

use crate::mem::pointer;

/// L0's table pages, for the EPT builders.
#[derive(Clone, Copy, Debug)]
pub struct Tables;

impl umbra_ept::mem::TableMemory for Tables {
    fn read(&self, table_hpa: u64, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: the EPT code only names pages that it was given, which are
        // L0's, mapped and aligned.
        unsafe {
            pointer(table_hpa)
                .cast::<u64>()
                .wrapping_add(index)
                .read_volatile()
        }
    }

    fn write(&mut self, table_hpa: u64, index: usize, value: u64) {
        assert!(index < 512);
        // SAFETY: as `read`; a volatile store is one store, and x86 keeps
        // stores in order.
        unsafe {
            pointer(table_hpa)
                .cast::<u64>()
                .wrapping_add(index)
                .write_volatile(value)
        }
    }

    fn fill(&mut self, table_hpa: u64, value: u64) {
        // SAFETY: a whole page of L0's, as `read`; nothing can see the table
        // before the entry that names it, which is written later.
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rcx") 512u64 => _,
                inout("rdi") pointer(table_hpa) => _,
                in("rax") value,
                options(nostack, preserves_flags)
            );
        }
    }
}
