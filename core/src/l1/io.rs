//! Port I/O that exits: it goes out as L1 meant it, and L0 takes note of where
//! L1 stands on the serial line and whether it is ending the run.

use crate::action::Action;
use crate::arch::io;
use crate::console::{self, COM1};
use crate::cpu::percpu::Cpu;
use crate::cpu::registers::gpr;
use crate::exit::IoAccess;
use crate::l1::instruction::note_access;
use crate::report;
use umbra_core::breakpoints::Kind;
use umbra_core::line::register;

/// Handles IN and OUT.
pub fn handle(cpu: &mut Cpu, access: IoAccess) -> Action {
    if access.is_input {
        let value = input(access);
        let rax = &mut cpu.regs.gprs[gpr::RAX];
        *rax = match access.bytes {
            1 => *rax & !0xff | u64::from(value & 0xff),
            2 => *rax & !0xffff | u64::from(value & 0xffff),
            _ => u64::from(value),
        };
    } else {
        output(cpu, access, cpu.regs.gprs[gpr::RAX] as u32);
    }
    note_access(Kind::Port, access.port.into(), access.bytes.into());
    Action::Skip
}

/// IN.
pub fn input(access: IoAccess) -> u32 {
    match access.bytes {
        1 => u32::from(io::in8(access.port)),
        2 => u32::from(io::in16(access.port)),
        _ => io::in32(access.port),
    }
}

/// OUT, with whatever L0 has to do before and after.
pub fn output(cpu: &mut Cpu, access: IoAccess, value: u32) {
    let bytes = value.to_le_bytes();
    let bytes = &bytes[..usize::from(access.bytes)];
    if cpu.watch.about_to_write(access.port, bytes).is_some() && console::may_end() {
        report::trace();
        report::print();
        console::flush();
    }
    let out = || match access.bytes {
        1 => io::out8(access.port, value as u8),
        2 => io::out16(access.port, value as u16),
        _ => io::out32(access.port, value),
    };
    // An access that begins below COM1 and reaches into it writes its first
    // registers.
    let offset = access.port.wrapping_sub(COM1);
    let below = offset.wrapping_neg();
    if offset <= register::LINE_CONTROL {
        console::l1_writes(offset, bytes, out);
    } else if let Some(inside) = bytes.get(usize::from(below)..).filter(|b| !b.is_empty()) {
        console::l1_writes(0, inside, out);
    } else {
        out();
    }
}
