//! VM exits of L1, decoded: one variant a family, each with what it needs.
//! SDM "Basic VM-Exit Information", "Exit Qualification".

use crate::vmcs::current::read;
use umbra_arch::Gpa1;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

/// Which general register, by the numbers of instruction encodings.
pub type Gpr = usize;

/// A control-register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrAccess {
    /// MOV to CR.
    Write {
        /// Number of the control register.
        register: u8,
        /// The source.
        from: Gpr,
    },
    /// MOV from CR.
    Read {
        /// Number of the control register.
        register: u8,
        /// The destination.
        to: Gpr,
    },
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw {
        /// Its 16-bit source, whether a register or memory.
        source: u16,
    },
}

impl CrAccess {
    /// From an exit qualification.
    pub const fn decode(qualification: u64) -> Self {
        let register = (qualification & 0xf) as u8;
        let gpr = (qualification >> 8 & 0xf) as usize;
        match qualification >> 4 & 3 {
            0 => Self::Write {
                register,
                from: gpr,
            },
            1 => Self::Read { register, to: gpr },
            2 => Self::Clts,
            _ => Self::Lmsw {
                source: (qualification >> 16) as u16,
            },
        }
    }
}

/// An I/O instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The first port.
    pub port: u16,
    /// 1, 2 or 4.
    pub bytes: u8,
    /// IN or INS.
    pub is_input: bool,
    /// INS or OUTS.
    pub is_string: bool,
    /// With a REP prefix.
    pub is_repeated: bool,
}

impl IoAccess {
    /// From an exit qualification.
    pub const fn decode(qualification: u64) -> Self {
        Self {
            port: (qualification >> 16) as u16,
            bytes: match qualification & 7 {
                0 => 1,
                1 => 2,
                _ => 4,
            },
            is_input: qualification & 1 << 3 != 0,
            is_string: qualification & 1 << 4 != 0,
            is_repeated: qualification & 1 << 5 != 0,
        }
    }
}

/// Why L1 left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An NMI, while one waits for L1's NMI window.
    Nmi,
    /// L1 can take an NMI.
    NmiWindow,
    /// A machine check during VM entry.
    MachineCheck,
    /// A fault while delivering a double fault.
    TripleFault,
    /// An INIT signal.
    Init,
    /// A start-up IPI, with its vector.
    Sipi(u8),
    /// The preemption timer, which runs out before the first instruction behind a
    /// start-up IPI.
    PreemptionTimer,
    /// A task switch.
    TaskSwitch {
        /// The exit qualification.
        qualification: u64,
    },
    /// CPUID.
    Cpuid,
    /// GETSEC, or an instruction of TDX: hidden from L1, yet they exit whatever
    /// vmcs01 says.
    Hidden,
    /// INVD.
    Invd,
    /// A control register.
    CrAccess(CrAccess),
    /// An I/O instruction to a port of the bitmaps.
    Io(IoAccess),
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// XSETBV.
    Xsetbv,
    /// An access that ept01 does not allow.
    EptViolation {
        /// L1's physical address.
        gpa1: Gpa1,
        /// The exit qualification.
        qualification: u64,
    },
    /// An instruction of VMX.
    Vmx(Reason),
    /// An exit that vmcs01 does not ask for.
    Unexpected(Reason),
    /// A number that the SDM does not define.
    Unknown(u16),
}

impl Exit {
    /// Decodes the exit of the current VMCS with this basic reason. Inlined, so that
    /// each arm goes straight to its handler.
    #[inline(always)]
    pub fn decode(number: u16) -> Self {
        let Some(reason) = Reason::from_number(number) else {
            return Self::Unknown(number);
        };
        let qualification = || read(field::EXIT_QUALIFICATION);
        match reason {
            Reason::ExceptionOrNmi => {
                match read(field::VM_EXIT_INTERRUPTION_INFORMATION) >> 8 & 7 {
                    2 => Self::Nmi,
                    _ => Self::Unexpected(reason),
                }
            }
            Reason::NmiWindow => Self::NmiWindow,
            Reason::EntryMachineCheck => Self::MachineCheck,
            Reason::TripleFault => Self::TripleFault,
            Reason::Init => Self::Init,
            Reason::Sipi => Self::Sipi(qualification() as u8),
            Reason::TaskSwitch => Self::TaskSwitch {
                qualification: qualification(),
            },
            Reason::PreemptionTimer => Self::PreemptionTimer,
            Reason::Cpuid => Self::Cpuid,
            Reason::Getsec | Reason::Seamcall | Reason::Tdcall => Self::Hidden,
            Reason::Invd => Self::Invd,
            Reason::CrAccess => Self::CrAccess(CrAccess::decode(qualification())),
            Reason::Io => Self::Io(IoAccess::decode(qualification())),
            Reason::Rdmsr => Self::Rdmsr,
            Reason::Wrmsr => Self::Wrmsr,
            Reason::Xsetbv => Self::Xsetbv,
            Reason::EptViolation => Self::EptViolation {
                gpa1: Gpa1::new(read(field::GUEST_PHYSICAL_ADDRESS)),
                qualification: qualification(),
            },
            Reason::Vmcall
            | Reason::Vmclear
            | Reason::Vmlaunch
            | Reason::Vmptrld
            | Reason::Vmptrst
            | Reason::Vmread
            | Reason::Vmresume
            | Reason::Vmwrite
            | Reason::Vmxoff
            | Reason::Vmxon
            | Reason::Invept
            | Reason::Invvpid
            | Reason::Vmfunc => Self::Vmx(reason),
            Reason::ExternalInterrupt
            | Reason::IoSmi
            | Reason::OtherSmi
            | Reason::InterruptWindow
            | Reason::Hlt
            | Reason::Invlpg
            | Reason::Rdpmc
            | Reason::Rdtsc
            | Reason::Rsm
            | Reason::DrAccess
            | Reason::EntryGuestState
            | Reason::EntryMsrLoading
            | Reason::Mwait
            | Reason::MonitorTrapFlag
            | Reason::Monitor
            | Reason::Pause
            | Reason::TprBelowThreshold
            | Reason::ApicAccess
            | Reason::VirtualizedEoi
            | Reason::GdtrIdtr
            | Reason::LdtrTr
            | Reason::EptMisconfiguration
            | Reason::Rdtscp
            | Reason::WbinvdWbnoinvd
            | Reason::ApicWrite
            | Reason::Rdrand
            | Reason::Invpcid
            | Reason::Encls
            | Reason::Rdseed
            | Reason::PmlFull
            | Reason::Xsaves
            | Reason::Xrstors
            | Reason::Pconfig
            | Reason::SppRelated
            | Reason::Umwait
            | Reason::Tpause
            | Reason::Loadiwkey
            | Reason::Enclv
            | Reason::EnqcmdPasid
            | Reason::EnqcmdsPasid
            | Reason::BusLock
            | Reason::InstructionTimeout
            | Reason::Rdmsrlist
            | Reason::Wrmsrlist => Self::Unexpected(reason),
        }
    }
}
