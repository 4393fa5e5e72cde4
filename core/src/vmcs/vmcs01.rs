//! vmcs01: how L1 runs. SDM "VM-Execution Control Fields", "Guest-State Area",
//! "Host-State Area".
//!
//! External interrupts, NMIs, exceptions, HLT, CR3 and the like are L1's own
//! and cause no exit. What does exit is in `l1/`.

use crate::arch::{msr, vmx};
use crate::cannot_start;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::fake_caps;
use crate::machine::machine;
use crate::platform::msr_policy;
use crate::vmcs::current::{write, write_address, write_ept_pointer};
use crate::vmcs::host_state;
use umbra_arch::{Cr0, Cr4, Efer, Hpa};
use umbra_core::features;
use umbra_core::line::register;
use umbra_guests::StartState;
use umbra_nested::Current;
use umbra_vmcs::controls::{Entry, Exit, Pin, Proc, Proc2};
use umbra_vmcs::field::{self, FieldSet, SegmentFields};

/// L1's VPID.
pub const L1_VPID: u16 = 0xffff;

/// CR0 bits that L1 needs at 1 only while it is in VMX operation.
pub const CR0_IN_VMX: u64 = Cr0::PE.bits() | Cr0::NE.bits() | Cr0::PG.bits();

/// The bits of CR0 that L0 owns: NE always, since VMX operation of L0 needs it
/// at 1 while L1 may clear it.
pub fn cr0_mask(is_l1_in_vmx: bool) -> u64 {
    if is_l1_in_vmx {
        CR0_IN_VMX
    } else {
        Cr0::NE.bits()
    }
}

/// The bits of CR4 that L1 cannot have: no guest can have SMX, and L0 does not
/// switch FRED's state.
pub const CR4_HIDDEN: u64 = Cr4::SMXE.bits() | Cr4::FRED.bits();

/// The bits of CR4 that L0 owns: VMXE, as NE in CR0, and those that L1 cannot
/// have.
pub const CR4_MASK: u64 = Cr4::VMXE.bits() | CR4_HIDDEN;

/// Makes vmcs01 this CPU's current VMCS, complete but for L1's registers. The
/// CPU is in VMX root operation.
pub fn make(cpu: &mut Cpu) {
    let region = cpu.pages.vmcs01.base();
    // SAFETY: a page of this CPU's own with the revision id in it.
    if let Err(fail) = unsafe { vmx::vmclear(region) } {
        panic!("VMCLEAR of vmcs01: {fail:?}");
    }
    // SAFETY: as above.
    if let Err(fail) = unsafe { vmx::vmptrld(region) } {
        panic!("VMPTRLD of vmcs01: {fail:?}");
    }
    cpu.vmcs.made(Current::Vmcs01);
    cpu.present = present_fields();
    if let Err(missing) = features::check_fields(&cpu.present) {
        cannot_start!("this CPU has no {} in its VMCS", missing.name());
    }
    write_controls(cpu);
    host_state::write(cpu);
    write(field::GUEST_IA32_PAT, msr::read(msr::IA32_PAT));
    write(field::GUEST_DR7, 0x400);
    write_address(field::VMCS_LINK_POINTER, Hpa::NOWHERE);
    for zero in [
        field::GUEST_CR0,
        field::GUEST_IA32_DEBUGCTL,
        field::GUEST_IA32_SYSENTER_CS,
        field::GUEST_IA32_SYSENTER_ESP,
        field::GUEST_IA32_SYSENTER_EIP,
        field::GUEST_INTERRUPTIBILITY_STATE,
        field::GUEST_ACTIVITY_STATE,
        field::GUEST_PENDING_DEBUG_EXCEPTIONS,
    ] {
        write(zero, 0);
    }
}

/// The fields of the current VMCS: the CPU itself says which it has.
fn present_fields() -> FieldSet {
    let mut present = FieldSet::EMPTY;
    for field in field::ALL {
        if !fake_caps::lacks(field) && vmx::vmread(field).is_ok() {
            present.insert(field);
        }
    }
    present
}

fn write_controls(cpu: &mut Cpu) {
    let caps = &machine().vmx;
    write(
        field::PIN_BASED_CONTROLS,
        u64::from(caps.pin().adjust(Pin::empty().bits())),
    );
    let primary = Proc::USE_MSR_BITMAPS | Proc::USE_IO_BITMAPS | Proc::ACTIVATE_SECONDARY_CONTROLS;
    write(
        field::PRIMARY_PROCESSOR_BASED_CONTROLS,
        u64::from(caps.proc().adjust(primary.bits())),
    );
    // The second line lets instructions through that would raise #UD; CPUID
    // agrees (`umbra_core::cpuid`).
    let secondary = Proc2::ENABLE_EPT
        | Proc2::ENABLE_VPID
        | Proc2::UNRESTRICTED_GUEST
        | Proc2::ENABLE_RDTSCP
        | Proc2::ENABLE_INVPCID
        | Proc2::ENABLE_XSAVES_XRSTORS
        | Proc2::ENABLE_USER_WAIT_AND_PAUSE;
    write(
        field::SECONDARY_PROCESSOR_BASED_CONTROLS,
        u64::from(caps.proc2.adjust(secondary.bits())),
    );
    let exit = Exit::HOST_ADDRESS_SPACE_SIZE
        | Exit::SAVE_EFER
        | Exit::LOAD_EFER
        | Exit::SAVE_PAT
        | Exit::LOAD_PAT
        | Exit::SAVE_DEBUG_CONTROLS;
    write(
        field::PRIMARY_VM_EXIT_CONTROLS,
        u64::from(caps.exit().adjust(exit.bits())),
    );
    let entry = Entry::LOAD_EFER | Entry::LOAD_PAT | Entry::LOAD_DEBUG_CONTROLS;
    write(
        field::VM_ENTRY_CONTROLS,
        u64::from(caps.entry().adjust(entry.bits())),
    );
    if cpu.present.contains(field::XSS_EXITING_BITMAP) {
        write(field::XSS_EXITING_BITMAP, 0);
    }
    for zero in [
        field::EXCEPTION_BITMAP,
        field::PAGE_FAULT_ERROR_CODE_MASK,
        field::PAGE_FAULT_ERROR_CODE_MATCH,
        field::CR3_TARGET_COUNT,
        field::VM_EXIT_MSR_STORE_COUNT,
        field::VM_EXIT_MSR_LOAD_COUNT,
        field::VM_ENTRY_MSR_LOAD_COUNT,
        field::VM_ENTRY_INTERRUPTION_INFORMATION,
        field::TSC_OFFSET,
    ] {
        write(zero, 0);
    }
    write(field::VIRTUAL_PROCESSOR_ID, u64::from(L1_VPID));
    write_ept_pointer(cpu.ept01.eptp());
    msr_policy::fill_bitmap(cpu.pages.msr_bitmap.bytes_mut());
    fill_io_bitmaps(cpu);
    let pages = [
        (field::MSR_BITMAP, cpu.pages.msr_bitmap.base()),
        (field::IO_BITMAP_A, cpu.pages.io_bitmaps.page(0)),
        (field::IO_BITMAP_B, cpu.pages.io_bitmaps.page(1)),
    ];
    for (to, page) in pages {
        write_address(to, page);
    }
    write(field::CR4_GUEST_HOST_MASK, CR4_MASK);
}

fn fill_io_bitmaps(cpu: &mut Cpu) {
    let com1 = [
        crate::console::COM1 + register::DATA,
        crate::console::COM1 + register::LINE_CONTROL,
    ];
    let ports = cpu.watch.ports();
    let bits = cpu.pages.io_bitmaps.bytes_mut();
    for port in ports.chain(com1) {
        bits[usize::from(port / 8)] |= 1 << (port % 8);
    }
}

/// Puts the current VMCS, vmcs01, and the stored registers into the state
/// given.
pub fn write_start_state(cpu: &mut Cpu, state: &StartState) {
    let g = &state.gpr;
    cpu.regs = crate::cpu::registers::Registers::default();
    let gprs = &mut cpu.regs.gprs;
    gprs[gpr::RAX] = g.rax;
    gprs[gpr::RBX] = g.rbx;
    gprs[gpr::RCX] = g.rcx;
    gprs[gpr::RDX] = g.rdx;
    gprs[gpr::RSI] = g.rsi;
    gprs[gpr::RDI] = g.rdi;
    gprs[gpr::RBP] = g.rbp;
    write(field::GUEST_RSP, g.rsp);
    write(field::GUEST_RIP, state.rip);
    write(field::GUEST_RFLAGS, state.rflags);
    write_cr0(cpu, state.cr0);
    write(field::GUEST_CR3, state.cr3);
    write_cr4(state.cr4);
    write_efer(state.efer);
    write_segments(state);
    write(field::GUEST_GDTR_BASE, state.gdtr.base);
    write(field::GUEST_GDTR_LIMIT, u64::from(state.gdtr.limit));
    write(field::GUEST_IDTR_BASE, state.idtr.base);
    write(field::GUEST_IDTR_LIMIT, u64::from(state.idtr.limit));
}

/// Gives L1 a CR0: `value` as L1 reads it.
pub fn write_cr0(cpu: &Cpu, value: u64) {
    let mask = cr0_mask(cpu.is_l1_in_vmx);
    write(field::CR0_GUEST_HOST_MASK, mask);
    write(field::CR0_READ_SHADOW, value);
    write(field::GUEST_CR0, value | Cr0::NE.bits());
}

/// Gives L1 a CR4: `value` as L1 reads it.
pub fn write_cr4(value: u64) {
    write(field::CR4_READ_SHADOW, value);
    write(field::GUEST_CR4, value & !CR4_HIDDEN | Cr4::VMXE.bits());
}

/// Gives L1 an IA32_EFER; "IA-32e mode guest" follows LMA.
pub fn write_efer(value: u64) {
    write(field::GUEST_IA32_EFER, value);
    let bit = u64::from(Entry::IA32E_MODE_GUEST.bits());
    let (set, clear) = if Efer::LMA.is_in(value) {
        (bit, 0)
    } else {
        (0, bit)
    };
    crate::vmcs::current::change(field::VM_ENTRY_CONTROLS, set, clear);
}

fn write_segments(state: &StartState) {
    let rows = [
        (&state.es, SegmentFields::ES),
        (&state.cs, SegmentFields::CS),
        (&state.ss, SegmentFields::SS),
        (&state.ds, SegmentFields::DS),
        (&state.fs, SegmentFields::FS),
        (&state.gs, SegmentFields::GS),
        (&state.ldtr, SegmentFields::LDTR),
        (&state.tr, SegmentFields::TR),
    ];
    for (segment, to) in rows {
        write(to.selector, u64::from(segment.selector));
        write(to.base, segment.base);
        write(to.limit, u64::from(segment.limit));
        write(to.rights, u64::from(segment.access_rights));
    }
}
