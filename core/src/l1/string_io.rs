//! INS and OUTS to a port that L0 watches: one element an exit. A repeated
//! instruction comes back for the next one, as it would after an interrupt.

use super::io;
use crate::action::Action;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::exit::IoAccess;
use crate::l1::instruction::note_access;
use crate::machine::machine;
use crate::vmcs::current::{change, read};
use umbra_arch::instruction::StringIoOperand;
use umbra_arch::{AccessRights, Exception, Gpa1, Linear, Rflags, SegmentName};
use umbra_core::breakpoints::Kind;
use umbra_nested::linear::LinearForm;
use umbra_nested::paging::{Access, Paging, Walked};
use umbra_nested::segmentation::Segment;
use umbra_nested::step::{end_of_instruction, is_64_bit_mode};
use umbra_nested::{Memory, Refusal};
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field::{self, SegmentFields};

/// IA32_VMX_BASIC: INS and OUTS come with instruction information.
const HAS_INFORMATION: u64 = 1 << 54;

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
            end_of_instruction(cpu);
            // Between two turns the instruction is under way: a breakpoint on
            // it is not met again. SDM "Instruction-Breakpoint Exception
            // Condition".
            change(field::GUEST_RFLAGS, Rflags::RF.bits(), 0);
            Action::Resume
        }
        Err(Refusal::Fault(fault)) => Action::raise(fault),
        Err(Refusal::Again) => Action::Resume,
    }
}

/// Moves one element; says whether it was the last.
fn element(cpu: &mut Cpu, access: IoAccess) -> Result<bool, Refusal> {
    let operand = StringIoOperand::from_bits(read(field::VM_EXIT_INSTRUCTION_INFORMATION) as u32);
    let size = operand.address_size();
    let count = cpu.regs.gprs[gpr::RCX] & size.mask();
    if access.is_repeated && count == 0 {
        return Ok(true);
    }
    let (pointer, segment) = if access.is_input {
        (gpr::RDI, Some(SegmentName::Es))
    } else {
        (gpr::RSI, SegmentName::from_number(operand.segment_number()))
    };
    let offset = cpu.regs.gprs[pointer] & size.mask();
    let linear = linear_address(cpu, segment, offset, access)?;
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
    note_access(kind, linear.raw(), step);
    let is_down = Rflags::DF.is_in(read(field::GUEST_RFLAGS));
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
fn linear_address(
    cpu: &mut Cpu,
    segment: Option<SegmentName>,
    offset: u64,
    access: IoAccess,
) -> Result<Linear, Exception> {
    let Some(segment) = segment else {
        return Err(Exception::GP);
    };
    let fields = SegmentFields::of(segment);
    let bytes = u64::from(access.bytes);
    let linear = if is_64_bit_mode(cpu) {
        let base = match segment.has_base_in_64_bit_mode() {
            true => read(fields.base),
            false => 0,
        };
        let form = LinearForm::new(read(field::GUEST_CR3), read(field::GUEST_CR4));
        form.resolve(base.wrapping_add(offset), bytes)
    } else {
        let segment = Segment {
            base: read(fields.base),
            limit: read(fields.limit),
            rights: AccessRights::from_bits(read(fields.rights) as u32),
        };
        segment.linear(offset, bytes, access.is_input)
    };
    linear.ok_or(match segment {
        SegmentName::Ss => Exception::SS,
        _ => Exception::GP,
    })
}

/// L1's physical address of each byte: the element may cross a page.
fn translate(cpu: &mut Cpu, linear: Linear, access: IoAccess) -> Result<[Gpa1; 4], Refusal> {
    let wanted = Access {
        write: access.is_input,
        // CPL is that of SS.
        user: AccessRights::from_bits(read(field::GUEST_SS_ACCESS_RIGHTS) as u32).dpl() == 3,
    };
    let has_gib_pages = crate::arch::cpuid::has_gib_pages();
    let paging = Paging::of_l1(cpu, machine().physical_address_bits, has_gib_pages);
    let mut places = [Gpa1::new(0); 4];
    for (place, at) in places.iter_mut().zip(0..u64::from(access.bytes)) {
        *place = paging.translate(cpu, &mut Walked::new(), linear.plus(at), wanted)?;
    }
    Ok(places)
}
