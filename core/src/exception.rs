//! Exceptions in L0. See `exception.S`.

use crate::arch::desc::{self, Handlers};
use crate::cpu::percpu::PerCpu;
use core::arch::global_asm;
use core::mem::offset_of;

global_asm!(
    include_str!("exception.S"),
    INBOX = const offset_of!(PerCpu, shared.nmi_inbox),
    options(att_syntax)
);

/// Bytes from one stub to the next in `exception_stubs`.
const STUB_BYTES: u64 = 16;

unsafe extern "C" {
    /// The first of 32 stubs, one a vector.
    safe static exception_stubs: u8;
    /// The NMI's own.
    safe static nmi_stub: u8;
}

/// What `exception_common` pushed, lowest address first.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    gprs: [u64; 15],
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// An exception that nothing accounts for: L0's own bug.
#[unsafe(no_mangle)]
extern "C" fn umbra_exception(frame: &Frame) -> ! {
    let cr2: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack)) }
    crate::panic::fatal(format_args!(
        "exception {} in Umbra at {:#x}, error code {:#x}, RSP {:#x}, CR2 {:#x}",
        frame.vector, frame.rip, frame.error_code, frame.rsp, cr2
    ))
}

/// Has exceptions and NMIs come here, on every CPU that loads the IDT.
pub fn take() {
    // SAFETY: the stubs, 32 of them STUB_BYTES apart, and the NMI's own.
    unsafe {
        desc::make_idt(Handlers {
            exceptions: &raw const exception_stubs as u64,
            spacing_bytes: STUB_BYTES,
            nmi: &raw const nmi_stub as u64,
        });
    }
}
