//! Cases of event injection.

use super::cases;
use crate::controls::Proc;
use crate::field;
use umbra_arch::EventType;
use umbra_arch::vmx_cap::{VmxBasic, VmxMisc};

cases! {
    /// Event injection.
    CASES:
    "ctl.event.type" => {
        keeps "no event, all other bits set", |b| {
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x7fff_ffff)
        };
        keeps "a pending MTF VM exit", |b| b.inject(EventType::Other, 0);
        keeps "external interrupt", |b| {
            b.or(field::GUEST_RFLAGS, 1 << 9);
            b.inject(EventType::ExternalInterrupt, 0x20)
        };
        breaks "1", |b| b.inject(EventType::Reserved, 0);
        breaks "1, with an error code and more", |b| {
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0xffff_f9ff)
        };
        breaks "7 on a CPU without MTF", |b| {
            b.caps.proc_true = b.caps.proc_true.without(Proc::MONITOR_TRAP_FLAG.bits());
            b.inject(EventType::Other, 0)
        };
    }
    "ctl.event.vector.nmi" => {
        keeps "2", |b| b.inject(EventType::Nmi, 2);
        breaks "1", |b| b.inject(EventType::Nmi, 1);
        breaks "3", |b| b.inject(EventType::Nmi, 3);
        breaks "130", |b| b.inject(EventType::Nmi, 130);
    }
    "ctl.event.vector.exception" => {
        keeps "0", |b| b.inject(EventType::HardwareException, 0);
        keeps "31", |b| b.inject(EventType::HardwareException, 31);
        breaks "32", |b| b.inject(EventType::HardwareException, 32);
        breaks "255", |b| b.inject(EventType::HardwareException, 255);
    }
    "ctl.event.vector.other" => {
        keeps "0", |b| b.inject(EventType::Other, 0);
        breaks "1", |b| b.inject(EventType::Other, 1);
        breaks "255", |b| b.inject(EventType::Other, 255);
    }
    "ctl.event.error-code.type" => {
        keeps "a page fault", |b| {
            b.inject(EventType::HardwareException, 14);
            b.error_code(2)
        };
        breaks "an external interrupt", |b| {
            b.or(field::GUEST_RFLAGS, 1 << 9);
            b.inject(EventType::ExternalInterrupt, 14);
            b.error_code(0)
        };
        breaks "an NMI", |b| {
            b.inject(EventType::Nmi, 2);
            b.error_code(0)
        };
        breaks "a software interrupt", |b| {
            b.inject(EventType::SoftwareInterrupt, 13);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 2);
            b.error_code(0)
        };
        breaks "a privileged software exception", |b| {
            b.inject(EventType::PrivilegedSoftwareException, 1);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1);
            b.error_code(0)
        };
        breaks "a software exception", |b| {
            b.inject(EventType::SoftwareException, 3);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1);
            b.error_code(0)
        };
        breaks "a pending MTF VM exit", |b| {
            b.inject(EventType::Other, 0);
            b.error_code(0)
        };
    }
    "ctl.event.error-code.unprotected" => {
        keeps "without an error code", |b| {
            b.real();
            b.inject(EventType::HardwareException, 13)
        };
        breaks "with one", |b| {
            b.real();
            b.inject(EventType::HardwareException, 13);
            b.error_code(0)
        };
        breaks "with one, on a CPU that takes any", |b| {
            b.caps.basic |= VmxBasic::ANY_ERROR_CODE.bits();
            b.real();
            b.inject(EventType::HardwareException, 13);
            b.error_code(0)
        };
    }
    "ctl.event.error-code.missing" => {
        keeps "#GP without, on a CPU that takes any", |b| {
            b.caps.basic |= VmxBasic::ANY_ERROR_CODE.bits();
            b.inject(EventType::HardwareException, 13)
        };
        keeps "#DF with", |b| { b.inject(EventType::HardwareException, 8); b.error_code(0) };
        keeps "#TS with", |b| { b.inject(EventType::HardwareException, 10); b.error_code(0) };
        keeps "#NP with", |b| { b.inject(EventType::HardwareException, 11); b.error_code(0) };
        keeps "#SS with", |b| { b.inject(EventType::HardwareException, 12); b.error_code(0) };
        keeps "#GP with", |b| { b.inject(EventType::HardwareException, 13); b.error_code(0) };
        keeps "#AC with", |b| { b.inject(EventType::HardwareException, 17); b.error_code(0) };
        keeps "software interrupt 13", |b| {
            b.inject(EventType::SoftwareInterrupt, 13);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 2)
        };
        breaks "#DF", |b| b.inject(EventType::HardwareException, 8);
        breaks "#TS", |b| b.inject(EventType::HardwareException, 10);
        breaks "#NP", |b| b.inject(EventType::HardwareException, 11);
        breaks "#SS", |b| b.inject(EventType::HardwareException, 12);
        breaks "#GP", |b| b.inject(EventType::HardwareException, 13);
        breaks "#PF", |b| b.inject(EventType::HardwareException, 14);
        breaks "#AC", |b| b.inject(EventType::HardwareException, 17);
        breaks "#GP in an unrestricted guest with paging", |b| {
            b.unrestricted();
            b.inject(EventType::HardwareException, 13)
        };
    }
    "ctl.event.error-code.vector" => {
        keeps "#UD with, on a CPU that takes any", |b| {
            b.caps.basic |= VmxBasic::ANY_ERROR_CODE.bits();
            b.inject(EventType::HardwareException, 6);
            b.error_code(0)
        };
        keeps "#UD without", |b| b.inject(EventType::HardwareException, 6);
        breaks "#DE", |b| { b.inject(EventType::HardwareException, 0); b.error_code(0) };
        breaks "#UD", |b| { b.inject(EventType::HardwareException, 6); b.error_code(0) };
        breaks "#NM", |b| { b.inject(EventType::HardwareException, 7); b.error_code(0) };
        breaks "vector 9", |b| { b.inject(EventType::HardwareException, 9); b.error_code(0) };
        breaks "vector 15", |b| { b.inject(EventType::HardwareException, 15); b.error_code(0) };
        breaks "#MF", |b| { b.inject(EventType::HardwareException, 16); b.error_code(0) };
        breaks "#MC", |b| { b.inject(EventType::HardwareException, 18); b.error_code(0) };
        breaks "vector 21", |b| { b.inject(EventType::HardwareException, 21); b.error_code(0) };
        breaks "vector 31", |b| { b.inject(EventType::HardwareException, 31); b.error_code(0) };
    }
    "ctl.event.reserved" => {
        keeps "not valid, bits 30:12 set", |b| {
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x7fff_f302)
        };
        breaks "bit 12", |b| {
            b.inject(EventType::Nmi, 2);
            b.or(field::VM_ENTRY_INTERRUPTION_INFORMATION, 1 << 12)
        };
        breaks "bit 13", |b| {
            b.inject(EventType::Nmi, 2);
            b.or(field::VM_ENTRY_INTERRUPTION_INFORMATION, 1 << 13)
        };
        breaks "bit 20", |b| {
            b.inject(EventType::Nmi, 2);
            b.or(field::VM_ENTRY_INTERRUPTION_INFORMATION, 1 << 20)
        };
        breaks "bit 30", |b| {
            b.inject(EventType::Nmi, 2);
            b.or(field::VM_ENTRY_INTERRUPTION_INFORMATION, 1 << 30)
        };
    }
    "ctl.event.error-code.reserved" => {
        keeps "FFFFH", |b| {
            b.inject(EventType::HardwareException, 14);
            b.error_code(0xffff)
        };
        keeps "all ones, not delivered", |b| {
            b.inject(EventType::HardwareException, 6);
            b.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, u64::MAX)
        };
        keeps "all ones, no event", |b| {
            b.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0xb0e);
            b.set(field::VM_ENTRY_EXCEPTION_ERROR_CODE, u64::MAX)
        };
        breaks "bit 16", |b| {
            b.inject(EventType::HardwareException, 14);
            b.error_code(1 << 16)
        };
        breaks "bit 31", |b| {
            b.inject(EventType::HardwareException, 14);
            b.error_code(1 << 31)
        };
    }
    "ctl.event.length" => {
        keeps "15, software interrupt", |b| {
            b.inject(EventType::SoftwareInterrupt, 0x80);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 15)
        };
        keeps "16, hardware exception", |b| {
            b.inject(EventType::HardwareException, 6);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 16)
        };
        keeps "all ones, no event", |b| {
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, u64::MAX)
        };
        breaks "16, software interrupt", |b| {
            b.inject(EventType::SoftwareInterrupt, 0x80);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 16)
        };
        breaks "16, privileged software exception", |b| {
            b.inject(EventType::PrivilegedSoftwareException, 1);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 16)
        };
        breaks "16, software exception", |b| {
            b.inject(EventType::SoftwareException, 3);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 16)
        };
        breaks "bit 31", |b| {
            b.inject(EventType::SoftwareInterrupt, 0x80);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1 << 31 | 1)
        };
    }
    "ctl.event.length-zero" => {
        keeps "0 on a CPU that takes it", |b| {
            b.caps.misc |= VmxMisc::ZERO_LENGTH_INJECTION.bits();
            b.inject(EventType::SoftwareInterrupt, 0x80)
        };
        keeps "1", |b| {
            b.inject(EventType::SoftwareException, 3);
            b.set(field::VM_ENTRY_INSTRUCTION_LENGTH, 1)
        };
        keeps "0, NMI", |b| b.inject(EventType::Nmi, 2);
        breaks "0, software interrupt", |b| b.inject(EventType::SoftwareInterrupt, 0x80);
        breaks "0, privileged software exception", |b| {
            b.inject(EventType::PrivilegedSoftwareException, 1)
        };
        breaks "0, software exception", |b| b.inject(EventType::SoftwareException, 3);
    }
}
