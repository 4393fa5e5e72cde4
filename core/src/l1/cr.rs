//! MOV to and from control registers, CLTS and LMSW, where bits that L0 owns
//! are touched.

use crate::action::{Action, Event};
use crate::arch::cr as own;
use crate::arch::vmx::{InvvpidType, invvpid};
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::exit::CrAccess;
use crate::machine::machine;
use crate::mem::L1Physical;
use crate::vmcs::current::{read, write};
use crate::vmcs::vmcs01::{self, CR0_IN_VMX, L1_VPID};
use umbra_arch::{AccessRights, Cr0, Cr4, Efer, Gpa1, Linear};
use umbra_core::control_registers::{
    Effect, GeneralProtection, Mode, lmsw, pdpte_is_valid, write_cr0, write_cr4,
};
use umbra_vmcs::field;

/// Handles the access.
pub fn handle(cpu: &mut Cpu, access: CrAccess) -> Action {
    let mode = mode(cpu);
    let is_64_bit = Efer::LMA.is_in(mode.efer) && mode.cs_is_long;
    let source = |from: usize| {
        let value = match from {
            gpr::RSP => read(field::GUEST_RSP),
            _ => cpu.regs.gprs[from & 15],
        };
        if is_64_bit {
            value
        } else {
            value & 0xffff_ffff
        }
    };
    let done = match access {
        CrAccess::Write { register: 0, from } => {
            write_cr0(&mode, source(from)).and_then(|effect| set_cr0(cpu, &mode, effect))
        }
        CrAccess::Write { register: 4, from } => {
            write_cr4(&mode, source(from)).and_then(|effect| set_cr4(&mode, effect))
        }
        CrAccess::Clts => write_cr0(&mode, mode.cr0 & !Cr0::TS.bits())
            .and_then(|effect| set_cr0(cpu, &mode, effect)),
        CrAccess::Lmsw { source } => {
            lmsw(&mode, source).and_then(|effect| set_cr0(cpu, &mode, effect))
        }
        // Reads never exit for CR0 and CR4, and the other registers are L1's
        // own: no CPU exits for these.
        CrAccess::Write { .. } | CrAccess::Read { .. } => {
            return Action::Inject(Event::INVALID_OPCODE);
        }
    };
    match done {
        Ok(()) => Action::Skip,
        Err(GeneralProtection) => Action::Inject(Event::GENERAL_PROTECTION),
    }
}

/// The value of a register as L1 reads it: its own bits from the guest field,
/// L0's from the shadow.
fn as_l1_reads(value: u64, mask: u64, shadow: u64) -> u64 {
    value & !mask | shadow & mask
}

fn mode(cpu: &Cpu) -> Mode {
    Mode {
        cr0: as_l1_reads(
            read(field::GUEST_CR0),
            vmcs01::cr0_mask(cpu.is_l1_in_vmx),
            read(field::CR0_READ_SHADOW),
        ),
        cr3: read(field::GUEST_CR3),
        cr4: as_l1_reads(
            read(field::GUEST_CR4),
            vmcs01::CR4_MASK,
            read(field::CR4_READ_SHADOW),
        ),
        efer: read(field::GUEST_IA32_EFER),
        cs_is_long: AccessRights::from_bits(read(field::GUEST_CS_ACCESS_RIGHTS) as u32).long(),
        cr0_fixed: if cpu.is_l1_in_vmx { CR0_IN_VMX } else { 0 },
        cr4_fixed: if cpu.is_l1_in_vmx {
            Cr4::VMXE.bits()
        } else {
            0
        },
        // Every bit that the CPU has may be 1 in VMX operation.
        cr4_supported: machine().vmx.cr4_fixed1 & !vmcs01::CR4_HIDDEN,
    }
}

fn set_cr0(cpu: &Cpu, mode: &Mode, effect: Effect) -> Result<(), GeneralProtection> {
    if effect.loads_pdptes {
        load_pdptes(mode.cr3)?;
    }
    let cache_bits = Cr0::CD.bits() | Cr0::NW.bits();
    if (mode.cr0 ^ effect.value) & cache_bits != 0 {
        // VM entry does not load these two: they are changed here and now, and
        // L0 runs with them as well.
        let value = own::cr0() & !cache_bits | effect.value & cache_bits;
        // SAFETY: only caching changes.
        unsafe { own::set_cr0(value) };
    }
    vmcs01::write_cr0(cpu, effect.value);
    if effect.efer != mode.efer {
        vmcs01::write_efer(effect.efer);
    }
    flush_if(effect.flushes);
    Ok(())
}

fn set_cr4(mode: &Mode, effect: Effect) -> Result<(), GeneralProtection> {
    if effect.loads_pdptes {
        load_pdptes(mode.cr3)?;
    }
    vmcs01::write_cr4(effect.value);
    flush_if(effect.flushes);
    Ok(())
}

/// Loads the four PDPTEs from memory. SDM "PDPTE Registers".
pub fn load_pdptes(cr3: u64) -> Result<(), GeneralProtection> {
    let fields = [
        field::GUEST_PDPTE0,
        field::GUEST_PDPTE1,
        field::GUEST_PDPTE2,
        field::GUEST_PDPTE3,
    ];
    let table = Gpa1::new(cr3 & 0xffff_ffe0);
    let memory = L1Physical::new();
    let mut entries = [0; 4];
    for (entry, at) in entries.iter_mut().zip((0..).step_by(8)) {
        // The table is below 4 GiB, which L0 always maps.
        *entry = memory
            .read_u64(table.plus(at))
            .map_err(|_| GeneralProtection)?;
        if !pdpte_is_valid(*entry, machine().physical_address_bits) {
            return Err(GeneralProtection);
        }
    }
    for (to, entry) in fields.into_iter().zip(entries) {
        write(to, entry);
    }
    Ok(())
}

/// Drops L1's cached translations.
pub fn flush_if(flushes: bool) {
    if flushes && let Err(fail) = invvpid(InvvpidType::SingleContext, L1_VPID, Linear::new(0)) {
        panic!("INVVPID of L1: {fail:?}");
    }
}
