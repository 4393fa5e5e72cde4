//! INS and OUTS to a port that L0 watches: one element an exit. A repeated
//! instruction comes back for the next one, as it would after an interrupt.

use super::io;
use crate::action::Action;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::exit::IoAccess;
use crate::l1::instruction::end_of_instruction;
use crate::l1::instruction::note_access;
use crate::machine::machine;
use crate::vmcs::current::{change, read};
use umbra_core::breakpoints::Kind;
use umbra_core::control_registers::efer;
use umbra_core::string_operand::{AddressSize, Operand, SegmentFault};
use umbra_nested::linear::LinearForm;
use umbra_nested::paging::{Access, Paging, Walked};
use umbra_nested::{Fault, Memory, Refusal};
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field::{self, Field};

const RFLAGS_DF: u64 = 1 << 10;
const RFLAGS_RF: u64 = 1 << 16;
/// IA32_VMX_BASIC: INS and OUTS come with instruction information.
const HAS_INFORMATION: u64 = 1 << 54;
/// Segment numbers as in the instruction information.
const ES: u64 = 0;
const SS: u64 = 2;
const FS: u64 = 4;

/// Base, limit and access rights of a segment.
const SEGMENTS: [(Field, Field, Field); 6] = [
    (
        field::GUEST_ES_BASE,
        field::GUEST_ES_LIMIT,
        field::GUEST_ES_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_CS_BASE,
        field::GUEST_CS_LIMIT,
        field::GUEST_CS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_SS_BASE,
        field::GUEST_SS_LIMIT,
        field::GUEST_SS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_DS_BASE,
        field::GUEST_DS_LIMIT,
        field::GUEST_DS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_FS_BASE,
        field::GUEST_FS_LIMIT,
        field::GUEST_FS_ACCESS_RIGHTS,
    ),
    (
        field::GUEST_GS_BASE,
        field::GUEST_GS_LIMIT,
        field::GUEST_GS_ACCESS_RIGHTS,
    ),
];

/// Handles the access.
pub fn handle(cpu: &mut Cpu, access: IoAccess) -> Action {
    if machine().vmx.basic & HAS_INFORMATION == 0 {
        // A CPU that does not say which registers the instruction uses: L1
        // goes on with no port intercepted. Only L0's knowledge of the serial
        // line and of the run's end is lost.
        let bit = u64::from(Proc::USE_IO_BITMAPS.bits());
        change(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 0, bit);
        return Action::Resume;
    }
    match element(cpu, access) {
        Ok(is_last) => {
            if is_last {
                return Action::Skip;
            }
            end_of_instruction();
            // Between two turns the instruction is under way: a breakpoint on
            // it is not met again. SDM "Instruction-Breakpoint Exception
            // Condition".
            change(field::GUEST_RFLAGS, RFLAGS_RF, 0);
            Action::Resume
        }
        Err(Refusal::Fault(fault)) => Action::raise(fault),
        Err(Refusal::Again) => Action::Resume,
    }
}

/// Moves one element; says whether it was the last.
fn element(cpu: &mut Cpu, access: IoAccess) -> Result<bool, Refusal> {
    let information = read(field::VM_EXIT_INSTRUCTION_INFORMATION);
    let size = AddressSize::from_information(information);
    let count = cpu.regs.gprs[gpr::RCX] & size.mask();
    if access.is_repeated && count == 0 {
        return Ok(true);
    }
    let (pointer, segment) = if access.is_input {
        (gpr::RDI, ES)
    } else {
        (gpr::RSI, information >> 15 & 7)
    };
    let offset = cpu.regs.gprs[pointer] & size.mask();
    let linear = linear_address(segment, offset, access)?;
    let bytes = usize::from(access.bytes);
    let places = translate(cpu, linear, access)?;
    let mut data = [0; 4];
    if access.is_input {
        data = io::input(access).to_le_bytes();
        for (&place, byte) in places.iter().zip(&data).take(bytes) {
            cpu.write_l1(place, core::slice::from_ref(byte));
        }
    } else {
        for (&place, byte) in places.iter().zip(&mut data).take(bytes) {
            cpu.read_l1(place, core::slice::from_mut(byte));
        }
        io::output(cpu, access, u32::from_le_bytes(data));
    }
    let step = u64::from(access.bytes);
    note_access(Kind::Port, access.port.into(), step);
    let kind = if access.is_input {
        Kind::Write
    } else {
        Kind::Read
    };
    note_access(kind, linear, step);
    let is_down = read(field::GUEST_RFLAGS) & RFLAGS_DF != 0;
    let by = if is_down { step.wrapping_neg() } else { step };
    let gprs = &mut cpu.regs.gprs;
    gprs[pointer] = size.moved(gprs[pointer], by);
    if !access.is_repeated {
        return Ok(true);
    }
    gprs[gpr::RCX] = size.moved(gprs[gpr::RCX], 1u64.wrapping_neg());
    Ok(count == 1)
}

/// Checks the segment and gives the element's linear address.
fn linear_address(segment: u64, offset: u64, access: IoAccess) -> Result<u64, Fault> {
    let Some(&(base, limit, rights)) = SEGMENTS.get(segment as usize) else {
        return Err(Fault::GP);
    };
    let is_64_bit = read(field::GUEST_IA32_EFER) & efer::LMA != 0
        && read(field::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 != 0;
    let operand = Operand {
        offset,
        bytes: u64::from(access.bytes),
        is_write: access.is_input,
        is_64_bit,
        form: LinearForm::new(read(field::GUEST_CR3), read(field::GUEST_CR4)),
        base: if is_64_bit && segment < FS {
            0
        } else {
            read(base)
        },
        limit: read(limit),
        rights: read(rights),
    };
    operand.linear().map_err(
        |SegmentFault| {
            if segment == SS { Fault::SS } else { Fault::GP }
        },
    )
}

/// L1's physical address of each byte: the element may cross a page.
fn translate(cpu: &mut Cpu, linear: u64, access: IoAccess) -> Result<[u64; 4], Refusal> {
    let wanted = Access {
        write: access.is_input,
        // CPL is that of SS.
        user: read(field::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3 == 3,
    };
    let has_gib_pages = crate::arch::cpuid::cpuid_or_zero(0x8000_0001, 0).edx & 1 << 26 != 0;
    let paging = Paging::of_l1(cpu, machine().physical_address_bits, has_gib_pages);
    let mut places = [0; 4];
    for (place, at) in places.iter_mut().zip(0..u64::from(access.bytes)) {
        *place = paging.translate(cpu, &mut Walked::new(), linear.wrapping_add(at), wanted)?;
    }
    Ok(places)
}
