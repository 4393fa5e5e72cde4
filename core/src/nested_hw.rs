//! The machine as `umbra-nested` sees it: one CPU, its VMCSs and L1's memory.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::l1::instruction::note_access;
use umbra_arch::{Gpa1, Hpa, Linear};
use umbra_core::breakpoints::Kind;
use umbra_ept::ept01::{Ept01, OnDemand};
use umbra_ept::eptp::OwnEptp;
use umbra_ept::invalidate::Invalidate;
use umbra_ept::mem::{BLOCK, L1Memory, Leaf01};
use umbra_nested::{
    Current, HostImage, Lent, Memory, MsrFault, Msrs, Registers, SlotId, Translations, VmcsAccess,
};
use umbra_vmcs::field::FieldSet;
use umbra_vmcs::{Field, Vmcs12};

use crate::arch::{cr, msr, vmx};
use crate::cpu::percpu::Cpu;
use crate::fake_caps;
use crate::mem::{L1Physical, PAGE_BYTES, Tables, layout, pointer};
use crate::platform::msr_policy::{settle, settle_mtrrs};
use crate::vmcs::{current, lent, shadow, vmcs02};

impl Cpu {
    #[inline(always)]
    fn vmcs02(&self, slot: SlotId) -> Hpa {
        self.pages.vmcs02.page(slot.number() as u64)
    }

    /// Closes the MSR bitmap of L2.
    pub fn close_merged_bitmap(&mut self) {
        let merged = self.merged_bitmap();
        self.open_words.close_all(merged);
    }

    /// The page for the MSR bitmap that L2 runs with.
    fn merged_bitmap(&self) -> Hpa {
        self.pages.nested.page(0)
    }

    /// The VM-exit MSR-store list of every vmcs02: one entry.
    pub fn exit_store_list(&self) -> Hpa {
        self.pages.nested.page(1)
    }

    /// Makes IA32_TSC the entry of that list.
    pub fn fill_exit_store_list(&mut self) {
        let words_per_page = (PAGE_BYTES / 8) as usize;
        if let Some(entry) = self.pages.nested.words_mut().get_mut(words_per_page) {
            *entry = u64::from(msr::IA32_TIME_STAMP_COUNTER);
        }
    }
}

/// L1's memory, with ept01 in front.
pub struct L1View<'a>(&'a Ept01);

impl L1Memory for L1View<'_> {
    #[inline(always)]
    fn read_u64(&mut self, gpa1: Gpa1) -> Option<u64> {
        L1Physical::new().read_u64(gpa1).ok()
    }

    #[inline]
    fn read_block(&mut self, gpa1: Gpa1) -> [u64; BLOCK] {
        L1Physical::new().read_words(gpa1).unwrap_or([0; BLOCK])
    }

    fn compare_exchange_u64(&mut self, gpa1: Gpa1, old: u64, new: u64) -> bool {
        // Where nothing answers, a store is lost.
        L1Physical::new()
            .compare_exchange_u64(gpa1, old, new)
            .unwrap_or(true)
    }

    fn lookup01(&mut self, gpa1: Gpa1) -> Option<Leaf01> {
        self.0.lookup(&Tables, gpa1)
    }
}

/// Whether `bytes` aligned bytes at `gpa` are RAM of L1 that L0 has mapped.
fn is_l1_ram(gpa: Gpa1, bytes: u64) -> bool {
    let layout = layout();
    layout.maps(gpa.raw(), bytes) && !layout.touches_hidden(gpa, bytes)
}

impl VmcsAccess for Cpu {
    #[inline]
    fn read(&mut self, field: Field) -> u64 {
        current::read(field)
    }

    #[inline(always)]
    fn write(&mut self, field: Field, value: u64) {
        current::write(field, value);
    }

    #[inline(always)]
    fn write_address(&mut self, field: Field, address: Hpa) {
        current::write_address(field, address);
    }

    #[inline(always)]
    fn write_ept_pointer(&mut self, pointer: OwnEptp) {
        current::write_ept_pointer(pointer);
    }

    #[inline(always)]
    fn write_host_image(&mut self, image: &HostImage) {
        current::write_host_image(image);
    }

    #[inline(always)]
    fn switch_to(&mut self, which: Current) {
        if self.vmcs.is_current(which) {
            return;
        }
        let region = match which {
            Current::Vmcs01 => self.pages.vmcs01.base(),
            Current::Vmcs02(number) => self.vmcs02(number),
        };
        #[cfg(feature = "ledger-accesses")]
        crate::cpu::percpu::count_access(crate::cpu::counters::Access::Load);
        if let Some(slot) = self.vmcs.lent_current() {
            // Its region is what L1 reaches.
            lent::clear(self.pages.vmcs02.page(slot));
        }
        // SAFETY: the region is a page of this CPU's own, made a VMCS by
        // `vmcs01::make` or `vmcs02::make`.
        if let Err(fail) = unsafe { vmx::vmptrld(region) } {
            panic!("VMPTRLD of {which:?}: {fail:?}");
        }
        self.vmcs.switched_to(which);
    }

    #[inline(always)]
    fn lend_vmcs02(&mut self, slot: SlotId, how: Lent) {
        let region = self.vmcs02(slot);
        lent::lend(self, slot, region, how);
    }

    #[inline(always)]
    fn take_back_vmcs02(&mut self, slot: SlotId) {
        let region = self.vmcs02(slot);
        lent::take_back(self, slot, region);
    }

    fn link_vmcs02(&mut self, lent: Option<(SlotId, Lent)>) {
        lent::link(self, lent);
    }

    fn shadow_region(&self) -> Hpa {
        self.pages.shadow.base()
    }

    fn fill_shadow(&mut self, from: &Vmcs12, fields: &FieldSet) {
        shadow::fill(self, from, fields);
    }

    fn drain_shadow(&mut self, fields: &FieldSet, take: impl FnMut(Field, u64)) {
        shadow::drain(self, fields, take);
    }

    fn reset_vmcs02(&mut self, slot: SlotId) {
        let region = self.vmcs02(slot);
        if self.vmcs.is_lent(Current::Vmcs02(slot)) {
            lent::clear(region);
        }
        vmcs02::make(self, region);
        self.vmcs.made(Current::Vmcs02(slot));
    }
}

impl Registers for Cpu {
    #[inline]
    fn gpr(&self, number: usize) -> u64 {
        self.regs.gprs[number % 16]
    }

    #[inline]
    fn set_gpr(&mut self, number: usize, value: u64) {
        self.regs.gprs[number % 16] = value;
    }

    fn set_cr2(&mut self, value: u64) {
        cr::set_cr2(value);
    }

    fn pkru(&mut self) -> u32 {
        cr::pkru()
    }

    fn note_access(&mut self, linear: Linear, bytes: u64, is_write: bool) {
        let kind = if is_write { Kind::Write } else { Kind::Read };
        note_access(kind, linear.raw(), bytes);
    }
}

/// [`Memory::read_l1`] of any length, anywhere.
#[inline(never)]
fn read_any(gpa: Gpa1, bytes: &mut [u8]) {
    if L1Physical::new().read_bytes(gpa, bytes).is_err() {
        // Nothing answers there: the bus floats.
        bytes.fill(0xff);
    }
}

impl Memory for Cpu {
    #[inline(always)]
    fn read_l1(&self, gpa: Gpa1, bytes: &mut [u8]) {
        // What L0 reads most are entries of tables, pointers and descriptors: a load
        // or two.
        if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *bytes)
            && let Ok(value) = L1Physical::new().read_u64(gpa)
        {
            *word = value.to_le_bytes();
            return;
        }
        if let Ok(half) = <&mut [u8; 4]>::try_from(&mut *bytes)
            && let Ok(value) = L1Physical::new().read_u32(gpa)
        {
            *half = value.to_le_bytes();
            return;
        }
        if let Ok(words) = <&mut [u8; 16]>::try_from(&mut *bytes)
            && let Ok(low) = L1Physical::new().read_u64(gpa)
            && let Ok(high) = L1Physical::new().read_u64(gpa.plus(8))
        {
            *words = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
            return;
        }
        read_any(gpa, bytes);
    }

    #[inline(always)]
    fn holds_l1(&self, words: &[(Gpa1, u64)]) -> bool {
        L1Physical::new().holds(words)
    }

    #[inline(always)]
    fn write_l1(&mut self, gpa: Gpa1, bytes: &[u8]) {
        if let Ok(word) = <[u8; 8]>::try_from(bytes)
            && L1Physical::new().write_plain_u64(gpa, u64::from_le_bytes(word))
        {
            return;
        }
        // Where nothing answers, a write is lost.
        let _ = L1Physical::new().write_bytes(gpa, bytes);
    }

    fn set_bits_l1(&mut self, gpa: Gpa1, wide: bool, expected: u64, bits: u64) -> bool {
        let bytes = if wide { 8 } else { 4 };
        if !gpa.is_aligned(bytes) || !is_l1_ram(gpa, bytes) {
            return true;
        }
        let at = pointer(gpa.raw());
        if wide {
            // SAFETY: mapped RAM of L1, aligned, no Rust object of L0's; L1 may
            // access it at the same time.
            let word = unsafe { AtomicU64::from_ptr(at.cast()) };
            word.compare_exchange(
                expected,
                expected | bits,
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .is_ok()
        } else {
            // SAFETY: as above.
            let word = unsafe { AtomicU32::from_ptr(at.cast()) };
            let (old, new) = (expected as u32, (expected | bits) as u32);
            word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        }
    }

    fn backing(&mut self, gpa: Gpa1) -> Hpa {
        self.ept01.redirect(gpa)
    }
}

impl Msrs for Cpu {
    #[inline]
    fn merge_msr_bitmap(&mut self, gpa: Gpa1) -> Hpa {
        let merged = self.merged_bitmap();
        self.open_words.merge(merged, gpa);
        merged
    }

    fn open_msr(&mut self, gpa: Gpa1, index: u32, is_write: bool) -> bool {
        let merged = self.merged_bitmap();
        let own = self.pages.msr_bitmap.words_mut();
        self.open_words.open(merged, gpa, own, index, is_write)
    }

    fn rdmsr_l1(&mut self, index: u32) -> Result<u64, MsrFault> {
        crate::platform::msr_policy::read(self, index).map_err(|_| MsrFault)
    }

    fn wrmsr_l1(&mut self, index: u32, value: u64) -> Result<(), MsrFault> {
        crate::platform::msr_policy::write(self, index, value).map_err(|_| MsrFault)
    }

    fn tsc(&mut self) -> u64 {
        cr::tsc()
    }

    fn tsc_at_exit(&self) -> u64 {
        let value = self.exit_store_list().raw() + 8;
        // SAFETY: a page of this CPU's own, mapped and aligned; the CPU wrote it at
        // an exit, and runs L0 now.
        unsafe { pointer(value).cast::<u64>().read_volatile() }
    }
}

impl Translations for Cpu {
    type Tables = Tables;

    type Memory<'a> = L1View<'a>;

    fn ept(&mut self) -> (Tables, L1View<'_>) {
        (Tables, L1View(&self.ept01))
    }

    fn invvpid_single(&mut self, vpid: u16) {
        invvpid(vmx::InvvpidType::SingleContext, vpid, Linear::new(0));
    }

    fn invvpid_address(&mut self, vpid: u16, linear: Linear) {
        // The address is L1's. Whether it is canonical is the CPU's to say; what
        // it refuses costs the whole context.
        fake_caps::invalidates(40);
        if vmx::invvpid(vmx::InvvpidType::IndividualAddress, vpid, linear).is_err() {
            self.invvpid_single(vpid);
        }
    }

    fn invvpid_single_retaining_globals(&mut self, vpid: u16) {
        invvpid(
            vmx::InvvpidType::SingleContextRetainingGlobals,
            vpid,
            Linear::new(0),
        );
    }

    fn invvpid_all(&mut self) {
        invvpid(vmx::InvvpidType::AllContexts, 0, Linear::new(0));
    }

    fn invept_single(&mut self, eptp: OwnEptp) {
        invept(vmx::InveptType::SingleContext, eptp.raw());
    }

    fn invept_all(&mut self) {
        invept(vmx::InveptType::AllContexts, 0);
    }

    fn has_ept01_change(&self) -> bool {
        self.has_new_mtrrs || self.is_ept01_changed
    }

    fn take_ept01_change(&mut self) -> bool {
        settle_mtrrs(self);
        core::mem::take(&mut self.is_ept01_changed)
    }

    fn ept01_pointer(&self) -> OwnEptp {
        self.ept01.eptp()
    }

    fn keep_small_ept01(&mut self, gpa: Gpa1) {
        match self.ept01.keep_small(&mut Tables, gpa) {
            Invalidate::None => {}
            owed => {
                settle(owed);
                self.ept01.invalidated(&mut Tables);
            }
        }
    }

    fn map_ept01(&mut self, gpa: Gpa1) -> bool {
        map_on_demand(self, gpa)
    }
}

/// Maps an address in ept01 that so far was left out. False if it is beyond the
/// width that L1 is shown, and cannot be mapped.
pub fn map_on_demand(cpu: &mut Cpu, gpa: Gpa1) -> bool {
    // The second try has room: the first made it.
    for _ in 0..2 {
        match cpu.ept01.map_on_demand(&mut Tables, gpa) {
            Ok(()) => return true,
            Err(OnDemand::Never) => return false,
            Err(OnDemand::NoPages(owed)) => {
                settle(owed);
                cpu.ept01.invalidated(&mut Tables);
            }
        }
    }
    // The next violation finds the room.
    true
}

/// The operands come from `nested`, which has checked them: a failure is L0's
/// own bug.
fn invvpid(kind: vmx::InvvpidType, vpid: u16, linear: Linear) {
    fake_caps::invalidates(40 + kind as u32);
    if let Err(fail) = vmx::invvpid(kind, vpid, linear) {
        panic!("INVVPID {kind:?} of {vpid:#x}: {fail:?}");
    }
}

fn invept(kind: vmx::InveptType, eptp: u64) {
    fake_caps::invalidates(24 + kind as u32);
    if let Err(fail) = vmx::invept(kind, eptp) {
        panic!("INVEPT {kind:?} of {eptp:#x}: {fail:?}");
    }
}
