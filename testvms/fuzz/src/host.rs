//! L1 as a hypervisor that answers each exit somehow: it skips, it repairs, it injects.

use rt::random::Random;
use rt::vmx::insn::{read, vmread_raw, write};
use rt::vmx::vm::{Outcome, layout};
use rt::vmx::{Exit, ept};
use rt::{more, print, println};
use umbra_vmcs::controls::Proc;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, ALL, Area};

use crate::program::{self, SLOTS};
use crate::watch::{Watch, is_timeout};
use crate::world::{APIC_ACCESS, World};

/// Exits after which a case is over.
const LIMIT: u32 = 12;

/// Runs a case to its end and counts its exits by reason. The answer is the last exit reason, with 1000 added for a failed entry.
pub fn run(world: &mut World, random: &mut Random, watch: &mut Watch, reasons: &mut [u32]) -> u32 {
    loop {
        let outcome = world.vm.run();
        watch.outcome(world, &outcome);
        let exit = match outcome {
            Outcome::Exit(exit) if !exit.is_entry_failure() => exit,
            Outcome::Exit(exit) => return 1000 + u32::from(exit.basic()),
            Outcome::Failed(_) | Outcome::HostFault(_) => return 1000,
        };
        if let Some(count) = reasons.get_mut(usize::from(exit.basic())) {
            *count += 1;
        }
        if is_timeout(&outcome) {
            return exit.reason;
        }
        if watch.exits == LIMIT || !answer(world, random, &exit) {
            watch.memory(world);
            return exit.reason;
        }
        world.wind_timer();
        if random.chance(1, 12) {
            world.send_interrupt();
        }
    }
}

/// Does something about an exit. `false` when the case is over.
fn answer(world: &mut World, random: &mut Random, exit: &Exit) -> bool {
    write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
    let Some(reason) = exit.known() else {
        return false;
    };
    match reason {
        Reason::Vmcall if is_end(world, exit) => false,
        Reason::Vmcall if random.chance(1, 2) => leave_handler(world, random, exit),
        Reason::ExceptionOrNmi => {
            if random.chance(1, 2) {
                // Blocking by STI or MOV SS and an event do not go together for all of them.
                write(field::GUEST_INTERRUPTIBILITY_STATE, 0);
                reinject(
                    world,
                    exit.interruption,
                    exit.interruption_error,
                    exit.length,
                )
            } else {
                next_slot(world, exit)
            }
        }
        Reason::EptViolation | Reason::EptMisconfiguration => {
            let page = exit.guest_physical & !0xfff;
            if page >= layout::BYTES || page == APIC_ACCESS || random.chance(1, 3) {
                return next_slot(world, exit);
            }
            let vm = &world.vm;
            vm.ept().map(page, vm.memory.address() + page, ept::ALL);
            world.vm.forget_translations();
            again(world, exit)
        }
        Reason::PmlFull => {
            write(field::PML_INDEX, 511);
            again(world, exit)
        }
        Reason::TprBelowThreshold => {
            write(field::TPR_THRESHOLD, 0);
            true
        }
        Reason::InterruptWindow => {
            world.vm.proc(Proc::empty(), Proc::INTERRUPT_WINDOW_EXITING);
            if random.chance(1, 2) {
                world.inject(0x55, 0, 0);
            }
            true
        }
        Reason::ExternalInterrupt => {
            world.answer_interrupt(exit);
            true
        }
        Reason::MonitorTrapFlag => {
            if random.chance(1, 3) {
                world.vm.proc(Proc::empty(), Proc::MONITOR_TRAP_FLAG);
            }
            true
        }
        Reason::ApicWrite | Reason::VirtualizedEoi => true,
        Reason::TaskSwitch | Reason::ApicAccess => next_slot(world, exit),
        Reason::TripleFault => false,
        _ if reason.is_instruction() => {
            // A hypervisor that emulates an instruction ends its blocking by STI and MOV SS.
            let blocking = read(field::GUEST_INTERRUPTIBILITY_STATE);
            write(field::GUEST_INTERRUPTIBILITY_STATE, blocking & !3);
            world.vm.skip(exit);
            true
        }
        _ => false,
    }
}

/// Whether a VMCALL is the one at the end of the program.
fn is_end(world: &World, exit: &Exit) -> bool {
    program_rip(world, exit.rip) == program::start(SLOTS)
}

/// An instruction pointer as an address in L2's code page.
fn program_rip(world: &World, rip: u64) -> u64 {
    if world.vm.mode().is_16_bit() {
        rip.wrapping_add(layout::CODE)
    } else {
        rip
    }
}

/// Goes on with the slot behind the one that L2 is in; the case is over where there is none.
fn next_slot(world: &mut World, exit: &Exit) -> bool {
    let Some(slot) = program::slot_behind(program_rip(world, exit.rip)) else {
        return false;
    };
    let offset = program::start(slot) - layout::CODE;
    write(
        field::GUEST_INTERRUPTIBILITY_STATE,
        read(field::GUEST_INTERRUPTIBILITY_STATE) & !3,
    );
    write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    write(field::GUEST_ACTIVITY_STATE, 0);
    world.vm.jump(offset);
    true
}

/// From a VMCALL in a handler to some slot, as if the handler had returned there; else only past
/// the VMCALL.
fn leave_handler(world: &mut World, random: &mut Random, exit: &Exit) -> bool {
    if read(field::GUEST_CS_SELECTOR) & !3 == 8 && !world.vm.mode().is_16_bit() {
        let slot = random.below(SLOTS);
        world.vm.jump(program::start(slot) - layout::CODE);
    } else {
        world.vm.skip(exit);
    }
    true
}

/// Lets an instruction begin anew, with the event that it interrupted, if any.
fn again(world: &World, exit: &Exit) -> bool {
    if exit.vectoring >> 31 == 0 {
        return true;
    }
    reinject(world, exit.vectoring, exit.vectoring_error, exit.length)
}

fn reinject(world: &World, information: u32, error_code: u32, length: u32) -> bool {
    let information = u64::from(information & 0xfff);
    world.inject(information, error_code.into(), length.into());
    // Few events go together with HLT, which the event ended.
    write(field::GUEST_ACTIVITY_STATE, 0);
    if information >> 8 & 7 == 2 {
        write(
            field::GUEST_INTERRUPTIBILITY_STATE,
            read(field::GUEST_INTERRUPTIBILITY_STATE) & !8,
        );
    }
    true
}

/// Prints the program and every control and guest field: what is needed to understand a case.
pub fn show_setup(world: &World) {
    for slot in 0..=SLOTS {
        print!("  slot {slot}:");
        for at in 0..crate::slot::BYTES as u64 {
            print!(
                " {:02x}",
                world.vm.memory.read::<u8>(program::start(slot) + at)
            );
        }
        println!();
    }
    for field in ALL {
        if matches!(field.area(), Area::Guest | Area::Control)
            && let Ok(value) = vmread_raw(u64::from(field.encoding()))
            && value != 0
        {
            more!("{} = {value:x}", field.name());
        }
    }
}
