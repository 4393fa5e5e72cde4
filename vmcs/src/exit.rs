//! Exit reasons. SDM appendix "VMX Basic Exit Reasons".

/// Bit 31 of the exit reason: the VM entry failed.
pub const ENTRY_FAILURE: u32 = 1 << 31;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Basic exit reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        #[allow(missing_docs)]
        pub enum Reason { $($name = $number,)* }

        impl Reason {
            /// The reason of a number; `None` for one that the SDM does not
            /// define.
            #[inline]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// A short name for dumps and the ledger.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

reasons! {
    ExceptionOrNmi = 0, "exception-or-nmi";
    ExternalInterrupt = 1, "external-interrupt";
    TripleFault = 2, "triple-fault";
    Init = 3, "init";
    Sipi = 4, "sipi";
    IoSmi = 5, "io-smi";
    OtherSmi = 6, "other-smi";
    InterruptWindow = 7, "interrupt-window";
    NmiWindow = 8, "nmi-window";
    TaskSwitch = 9, "task-switch";
    Cpuid = 10, "cpuid";
    Getsec = 11, "getsec";
    Hlt = 12, "hlt";
    Invd = 13, "invd";
    Invlpg = 14, "invlpg";
    Rdpmc = 15, "rdpmc";
    Rdtsc = 16, "rdtsc";
    Rsm = 17, "rsm";
    Vmcall = 18, "vmcall";
    Vmclear = 19, "vmclear";
    Vmlaunch = 20, "vmlaunch";
    Vmptrld = 21, "vmptrld";
    Vmptrst = 22, "vmptrst";
    Vmread = 23, "vmread";
    Vmresume = 24, "vmresume";
    Vmwrite = 25, "vmwrite";
    Vmxoff = 26, "vmxoff";
    Vmxon = 27, "vmxon";
    CrAccess = 28, "cr-access";
    DrAccess = 29, "dr-access";
    Io = 30, "io";
    Rdmsr = 31, "rdmsr";
    Wrmsr = 32, "wrmsr";
    EntryGuestState = 33, "entry-failure-guest-state";
    EntryMsrLoading = 34, "entry-failure-msr-loading";
    Mwait = 36, "mwait";
    MonitorTrapFlag = 37, "monitor-trap-flag";
    Monitor = 39, "monitor";
    Pause = 40, "pause";
    EntryMachineCheck = 41, "entry-failure-machine-check";
    TprBelowThreshold = 43, "tpr-below-threshold";
    ApicAccess = 44, "apic-access";
    VirtualizedEoi = 45, "virtualized-eoi";
    GdtrIdtr = 46, "gdtr-idtr";
    LdtrTr = 47, "ldtr-tr";
    EptViolation = 48, "ept-violation";
    EptMisconfiguration = 49, "ept-misconfiguration";
    Invept = 50, "invept";
    Rdtscp = 51, "rdtscp";
    PreemptionTimer = 52, "preemption-timer";
    Invvpid = 53, "invvpid";
    WbinvdWbnoinvd = 54, "wbinvd";
    Xsetbv = 55, "xsetbv";
    ApicWrite = 56, "apic-write";
    Rdrand = 57, "rdrand";
    Invpcid = 58, "invpcid";
    Vmfunc = 59, "vmfunc";
    Encls = 60, "encls";
    Rdseed = 61, "rdseed";
    PmlFull = 62, "pml-full";
    Xsaves = 63, "xsaves";
    Xrstors = 64, "xrstors";
    Pconfig = 65, "pconfig";
    SppRelated = 66, "spp-related";
    Umwait = 67, "umwait";
    Tpause = 68, "tpause";
    Loadiwkey = 69, "loadiwkey";
    Enclv = 70, "enclv";
    EnqcmdPasid = 72, "enqcmd-pasid";
    EnqcmdsPasid = 73, "enqcmds-pasid";
    BusLock = 74, "bus-lock";
    InstructionTimeout = 75, "instruction-timeout";
    Seamcall = 76, "seamcall";
    Tdcall = 77, "tdcall";
    Rdmsrlist = 78, "rdmsrlist";
    Wrmsrlist = 79, "wrmsrlist";
}

/// The exit-reason field of a VMCS. SDM "Basic VM-Exit Information".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReason(u32);

impl ExitReason {
    /// From the field's value.
    #[inline]
    pub const fn new(field: u64) -> Self {
        Self(field as u32)
    }

    /// The whole field.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The basic exit reason.
    #[inline]
    pub const fn basic(self) -> u16 {
        self.0 as u16
    }

    /// The basic exit reason, if the SDM defines it.
    #[inline]
    pub const fn known(self) -> Option<Reason> {
        Reason::from_number(self.basic())
    }

    /// Whether a VM entry failed, and nothing of the guest ran.
    #[inline]
    pub const fn is_entry_failure(self) -> bool {
        self.0 & ENTRY_FAILURE != 0
    }
}

impl Reason {
    /// Whether such an exit leaves the guest's RIP at the instruction that
    /// caused it, with the instruction's length in the length field.
    pub const fn is_instruction(self) -> bool {
        use Reason::*;
        matches!(
            self,
            Cpuid
                | Getsec
                | Hlt
                | Invd
                | Invlpg
                | Rdpmc
                | Rdtsc
                | Rsm
                | Vmcall
                | Vmclear
                | Vmlaunch
                | Vmptrld
                | Vmptrst
                | Vmread
                | Vmresume
                | Vmwrite
                | Vmxoff
                | Vmxon
                | CrAccess
                | DrAccess
                | Io
                | Rdmsr
                | Wrmsr
                | Mwait
                | Monitor
                | Pause
                | GdtrIdtr
                | LdtrTr
                | Invept
                | Rdtscp
                | Invvpid
                | WbinvdWbnoinvd
                | Xsetbv
                | Rdrand
                | Invpcid
                | Vmfunc
                | Encls
                | Rdseed
                | Xsaves
                | Xrstors
                | Pconfig
                | Umwait
                | Tpause
                | Loadiwkey
                | Enclv
                | Seamcall
                | Tdcall
                | Rdmsrlist
                | Wrmsrlist
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn numbers_round_trip() {
        for r in Reason::ALL {
            assert_eq!(Reason::from_number(*r as u16), Some(*r));
        }
        for n in [35, 38, 42, 71, 80, 0xffff] {
            assert_eq!(Reason::from_number(n), None);
        }
    }
}
