//! What the blocking bit must be when L0 stands between an exit and the next
//! entry: the SDM's rules as functions of field values.
//!
//! "Current VMCS" is vmcs01 or vmcs02, whichever exited; for vmcs01 the policy
//! is always [`Policy::Direct`], for vmcs02 it is vmcs12's.

use umbra_arch::qualification::{EptViolation, TaskSwitchSource};
use umbra_arch::{EventInfo, EventType};

use crate::{Interruptibility, Policy};

/// L1's interruptibility after an exit of L2 that L1 sees (SDM "Updating
/// Non-Register State" under "Loading Host State"): no shadow; an NMI exit
/// blocks; any other leaves blocking as it was in L2. Under virtual NMIs the
/// bit was not about the CPU's blocking, which was off.
///
/// `l2` is vmcs02's interruptibility at the exit; `by_nmi` says that the exit
/// is an NMI exit.
pub const fn l1_after_exit(policy: Policy, l2: Interruptibility, by_nmi: bool) -> Interruptibility {
    let carried = policy.bit_blocks_nmis() && l2.nmi();
    Interruptibility(0).with_nmi(by_nmi || carried)
}

/// The interruptibility with which L0 resumes the instruction that exited,
/// when it handled the exit by itself (filled ept02, emptied a PML buffer, took
/// an exception that it alone wanted).
///
/// An IRET that faults or meets an EPT violation has unblocked NMIs before the
/// exit; executed again it must find them blocked again (SDM "Resuming Guest
/// Software after Handling an Exception").
///
/// `bit12_word` is the word whose bit 12 is "NMI unblocking due to IRET": the
/// exit qualification of an EPT violation, a PML-full or an SPP exit, or the
/// VM-exit interruption information of an exception; 0 for other exits. The
/// bit is undefined, and ignored here, when IDT-vectoring information is valid,
/// when IRET does not unblock, and for a double fault.
#[must_use]
pub const fn before_retry(
    policy: Policy,
    now: Interruptibility,
    bit12_word: u64,
    idt_vectoring_info: u32,
    is_double_fault: bool,
) -> Interruptibility {
    let vectoring = EventInfo::from_bits(idt_vectoring_info);
    let undefined = vectoring.valid() || !policy.iret_unblocks() || is_double_fault;
    if undefined || !EptViolation::NMI_UNBLOCKING.is_in(bit12_word) {
        now
    } else {
        now.with_nmi(true)
    }
}

/// The interruptibility for an entry that injects again the event of a valid
/// IDT-vectoring information, and the VM-entry interruption information for it.
/// `None` when the field is not valid: there is nothing to inject again.
///
/// Delivering an NMI blocks before the exit. With virtual NMIs the entry would
/// then fail, so the bit goes; delivery sets it again. Without, the bit may
/// stay, and must: the CPU may not set it. Event delivery ends any shadow.
/// Bit 12 of the field is undefined and must be 0 in the entry field (SDM
/// "Resuming Guest Software after Handling an Exception").
#[must_use]
pub const fn before_reinjection(
    policy: Policy,
    now: Interruptibility,
    idt_vectoring_info: u32,
) -> Option<(u32, Interruptibility)> {
    let vectoring = EventInfo::from_bits(idt_vectoring_info);
    if !vectoring.valid() {
        return None;
    }
    let info = idt_vectoring_info & (1 << 31 | 0xfff);
    let is_nmi = vectoring.is(EventType::Nmi);
    let now = now.after_instruction();
    let now = match policy {
        Policy::Virtual if is_nmi => now.with_nmi(false),
        _ => now,
    };
    Some((info, now))
}

/// The interruptibility after L0 has emulated a task switch. The exit comes
/// before the switch: an IRET has not unblocked yet, and an NMI through a task
/// gate has been delivered when the switch is done (SDM "Treatment of Task
/// Switches").
#[must_use]
pub const fn after_task_switch(
    policy: Policy,
    now: Interruptibility,
    source: TaskSwitchSource,
    idt_vectoring_info: u32,
) -> Interruptibility {
    let now = now.after_instruction();
    let delivers_nmi = EventInfo::from_bits(idt_vectoring_info).is(EventType::Nmi);
    match source {
        TaskSwitchSource::Iret if policy.iret_unblocks() => now.with_nmi(false),
        TaskSwitchSource::Gate if delivers_nmi => now.with_nmi(true),
        _ => now,
    }
}
