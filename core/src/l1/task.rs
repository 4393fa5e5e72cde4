//! Hardware task switches of L1. `umbra_core::task_switch` does them; here the
//! registers come and go.

use crate::action::{Action, Event};
use crate::arch::cr as own;
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::machine::machine;
use crate::vmcs::current::{change, read, write};
use umbra_arch::event::vector;
use umbra_arch::qualification::TaskSwitch;
use umbra_arch::{Cr0, Cr4, Dr6, Dr7, EventInfo, Exception, Gpa1, Linear};
use umbra_core::control_registers::GeneralProtection;
use umbra_core::task_switch::{self, LinearMemory, Segment, Source, Switch, Task};
use umbra_nested::paging::{Access, Paging, Walked};
use umbra_nested::{Memory, Refusal, beyond_width};
use umbra_nmi::{Interruptibility, Policy, blocking};
use umbra_vmcs::field::{self, SegmentFields};

fn segment(fields: SegmentFields) -> Segment {
    Segment {
        selector: read(fields.selector) as u16,
        base: read(fields.base) as u32,
        limit: read(fields.limit) as u32,
        rights: read(fields.rights) as u32,
    }
}

fn set_segment(fields: SegmentFields, value: &Segment) {
    write(fields.selector, u64::from(value.selector));
    write(fields.base, u64::from(value.base));
    write(fields.limit, u64::from(value.limit));
    write(fields.rights, u64::from(value.rights));
}

fn gather(cpu: &Cpu) -> Task {
    let mut gprs = [0; 8];
    for (value, &register) in gprs.iter_mut().zip(&cpu.regs.gprs) {
        *value = register as u32;
    }
    gprs[gpr::RSP] = read(field::GUEST_RSP) as u32;
    Task {
        eip: read(field::GUEST_RIP) as u32,
        eflags: read(field::GUEST_RFLAGS) as u32,
        gprs,
        segments: SegmentFields::NAMED.map(segment),
        ldtr: segment(SegmentFields::LDTR),
        tr: segment(SegmentFields::TR),
        has_paging: Cr0::PG.is_in(read(field::GUEST_CR0)),
    }
}

fn scatter(cpu: &mut Cpu, task: &Task) {
    for (register, &value) in cpu.regs.gprs.iter_mut().zip(&task.gprs) {
        *register = u64::from(value);
    }
    write(field::GUEST_RSP, u64::from(task.gprs[gpr::RSP]));
    write(field::GUEST_RIP, u64::from(task.eip));
    write(field::GUEST_RFLAGS, u64::from(task.eflags));
    for (to, value) in SegmentFields::NAMED.into_iter().zip(&task.segments) {
        set_segment(to, value);
    }
    set_segment(SegmentFields::LDTR, &task.ldtr);
    set_segment(SegmentFields::TR, &task.tr);
}

/// L1's linear memory through its page tables.
struct L1Linear<'a>(&'a mut Cpu);

impl L1Linear<'_> {
    fn translate(&mut self, linear: u32, is_write: bool) -> Result<Gpa1, Exception> {
        let access = if is_write {
            Access::WRITE
        } else {
            Access::READ
        };
        let address = Linear::new(linear.into());
        // Task switches happen outside IA-32e mode: no 1 GiB pages there.
        let paging = Paging::of_l1(self.0, machine().physical_address_bits, false);
        paging
            .translate(self.0, &mut Walked::new(), address, access)
            .map_err(|refusal| {
                // A switch that has begun cannot begin again. If another CPU
                // will not leave the entries alone, L1 gets the page fault of
                // one whose change it has not seen yet.
                let fault = match refusal {
                    Refusal::Fault(fault) => fault,
                    Refusal::Again => Exception::page(address, access.error_code_present().bits()),
                };
                if let Some(linear) = fault.cr2 {
                    own::set_cr2(linear);
                }
                fault
            })
    }
}

/// Bytes from `linear` to the end of its page.
fn to_page_end(linear: u32) -> usize {
    0x1000 - (linear & 0xfff) as usize
}

impl LinearMemory for L1Linear<'_> {
    fn read(&mut self, linear: u32, bytes: &mut [u8]) -> Result<(), Exception> {
        let (head, tail) = bytes.split_at_mut(bytes.len().min(to_page_end(linear)));
        let first = self.translate(linear, false)?;
        self.0.read_l1(first, head);
        if !tail.is_empty() {
            let second = self.translate(linear.wrapping_add(head.len() as u32), false)?;
            self.0.read_l1(second, tail);
        }
        Ok(())
    }

    fn write(&mut self, linear: u32, bytes: &[u8]) -> Result<(), Exception> {
        let (head, tail) = bytes.split_at(bytes.len().min(to_page_end(linear)));
        let first = self.translate(linear, true)?;
        let second = match tail.is_empty() {
            true => None,
            false => Some(self.translate(linear.wrapping_add(head.len() as u32), true)?),
        };
        self.0.write_l1(first, head);
        if let Some(second) = second {
            self.0.write_l1(second, tail);
        }
        Ok(())
    }

    fn load_cr3(&mut self, value: u32) -> Result<(), Exception> {
        if Cr4::PAE.is_in(read(field::GUEST_CR4)) {
            super::cr::load_pdptes(u64::from(value)).map_err(|GeneralProtection| Exception::GP)?;
        }
        write(field::GUEST_CR3, u64::from(value));
        super::cr::flush_if(true);
        Ok(())
    }
}

/// The error code of the event that goes through a task gate, and whether it
/// leaves EIP at the instruction.
fn vectored_event(source: Source, vectoring: EventInfo) -> (Option<u32>, bool) {
    if source != Source::Gate || !vectoring.valid() {
        return (None, false);
    }
    let code = vectoring.has_error_code();
    let code = code.then(|| read(field::IDT_VECTORING_ERROR_CODE) as u32);
    (code, !vectoring.kind().is_of_instruction())
}

/// Does the task switch.
pub fn switch(cpu: &mut Cpu, qualification: u64) -> Action {
    let qualification = TaskSwitch::from_bits(qualification);
    let source = qualification.source();
    let vectoring = EventInfo::from_bits(read(field::IDT_VECTORING_INFORMATION) as u32);
    let (error_code, stays) = vectored_event(source, vectoring);
    let mut task = gather(cpu);
    let length = read(field::VM_EXIT_INSTRUCTION_LENGTH) as u32;
    let request = Switch {
        selector: qualification.selector(),
        source,
        gdt: (
            read(field::GUEST_GDTR_BASE) as u32,
            read(field::GUEST_GDTR_LIMIT) as u32,
        ),
        old_eip: if stays {
            task.eip
        } else {
            task.eip.wrapping_add(length)
        },
        error_code,
    };
    let done = task_switch::switch(&mut L1Linear(cpu), &mut task, &request);
    if done.is_committed {
        scatter(cpu, &task);
        finish(source, vectoring);
    }
    match done.exception {
        Some(exception) => raise(cpu, source, vectoring, exception),
        None if done.has_debug_trap => {
            set_dr6_bt();
            Action::Trap(Event::exception(Exception::plain(vector::DB)))
        }
        None => Action::Restart,
    }
}

/// The exception that a switch ended in. Where the switch itself was the
/// delivery of an exception, the two may make a double fault, or be the end.
fn raise(cpu: &Cpu, source: Source, vectoring: EventInfo, exception: Exception) -> Action {
    let vectoring = match source {
        Source::Gate => vectoring,
        _ => EventInfo::new(),
    };
    let fault = Exception {
        // The walk has set CR2.
        cr2: None,
        ..task_switch::with_ext(exception, vectoring)
    };
    match beyond_width::in_delivery(vectoring, fault) {
        Some(fault) => Action::raise(fault),
        None => super::stop::triple_fault(cpu),
    }
}

/// What else changes once the new task is in place.
fn finish(source: Source, vectoring: EventInfo) {
    const DR7_LOCAL: u64 = Dr7::LOCAL.union(Dr7::LE).bits();
    // TS is L1's own bit in CR0.
    change(field::GUEST_CR0, Cr0::TS.bits(), 0);
    change(field::GUEST_DR7, 0, DR7_LOCAL);
    write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    let now = Interruptibility(read(field::GUEST_INTERRUPTIBILITY_STATE) as u32);
    let after = blocking::after_task_switch(Policy::Direct, now, source, vectoring.into_bits());
    if after != now {
        write(field::GUEST_INTERRUPTIBILITY_STATE, u64::from(after.0));
    }
}

/// Sets BT in L1's DR6: the debug trap is that of a task switch.
fn set_dr6_bt() {
    let dr6: u64;
    // SAFETY: reads a register that L0 leaves to L1.
    unsafe { core::arch::asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack)) };
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("mov dr6, {}", in(reg) dr6 | Dr6::BT.bits(), options(nomem, nostack))
    };
}
