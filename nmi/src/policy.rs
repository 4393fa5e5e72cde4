//! Who sees an NMI, and what the interruptibility-state field says.

use umbra_arch::state::Blocking;
use umbra_vmcs::controls::Pin;

/// What a VMCS's pin-based controls make of an NMI (SDM "Pin-Based
/// VM-Execution Controls").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// NMI exiting 0: delivered through the IDT of whoever runs. L1 always
    /// runs like this; IRET unblocks.
    Direct,
    /// NMI exiting 1, virtual NMIs 0: an NMI exits; the blocking bit is the
    /// CPU's own and IRET does nothing to it.
    Exit,
    /// Both 1: an NMI exits and the CPU's own blocking is off; the blocking
    /// bit is a virtual one that IRET clears.
    Virtual,
}

impl Policy {
    /// The policy of a VMCS's pin-based VM-execution controls. Virtual NMIs
    /// without NMI exiting fails VM entry (SDM "VM-Execution Control Fields"
    /// under "Checks on VMX Controls"), so it is read as NMI exiting 0.
    pub const fn of_pin_controls(pin: u32) -> Self {
        if pin & Pin::NMI_EXITING.bits() == 0 {
            Policy::Direct
        } else if pin & Pin::VIRTUAL_NMIS.bits() == 0 {
            Policy::Exit
        } else {
            Policy::Virtual
        }
    }

    /// Whether IRET clears the blocking bit (SDM "Interruptibility State"
    /// under "Special Features of VM Entry").
    pub const fn iret_unblocks(self) -> bool {
        !matches!(self, Policy::Exit)
    }

    /// Whether the blocking bit holds back NMIs that arrive, and not only
    /// virtual ones.
    pub const fn bit_blocks_nmis(self) -> bool {
        !matches!(self, Policy::Virtual)
    }
}

/// The guest interruptibility-state field (SDM "Guest Non-Register State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Interruptibility(pub u32);

impl Interruptibility {
    /// Blocking by NMI: virtual-NMI blocking under virtual NMIs.
    pub const fn nmi(self) -> bool {
        Blocking::NMI.is_in(self.0)
    }

    /// Blocking until the next instruction is done: by MOV SS, which holds
    /// NMIs back, or by STI, which may (SDM "STI", and "Checks on Guest
    /// Non-Register State": some CPUs refuse to inject an NMI with it).
    pub const fn shadow(self) -> bool {
        Blocking::STI.union(Blocking::MOV_SS).any_in(self.0)
    }

    /// With blocking by NMI set or cleared.
    #[must_use]
    pub const fn with_nmi(self, blocked: bool) -> Self {
        if blocked {
            Self(self.0 | Blocking::NMI.bits())
        } else {
            Self(self.0 & !Blocking::NMI.bits())
        }
    }

    /// After L0 has executed an instruction for L1 or L2: the shadow of STI
    /// and MOV SS covers one instruction, and that one is done.
    #[must_use]
    pub const fn after_instruction(self) -> Self {
        Self(self.0 & !Blocking::STI.union(Blocking::MOV_SS).bits())
    }

    /// To go with an NMI that L0 injects as a CPU would deliver it: no shadow
    /// (VM entry would fail with MOV SS, and may with STI) and blocking by
    /// NMI said outright, because CPUs differ in whether injection sets it.
    #[must_use]
    pub const fn for_injected_nmi(self) -> Self {
        self.after_instruction().with_nmi(true)
    }
}
