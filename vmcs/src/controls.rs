//! The control words, bit by bit, under the SDM's names.
//!
//! Sources: SDM "Pin-Based VM-Execution Controls", "Processor-Based
//! VM-Execution Controls", "VM-Exit Controls", "VM-Entry Controls".

use bitflags::bitflags;

bitflags! {
    /// Pin-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Pin: u32 {
        /// External interrupts cause VM exits.
        const EXTERNAL_INTERRUPT_EXITING = 1 << 0;
        /// Non-maskable interrupts cause VM exits.
        const NMI_EXITING = 1 << 3;
        /// NMI blocking in the guest is virtual.
        const VIRTUAL_NMIS = 1 << 5;
        /// The VMX-preemption timer counts down.
        const ACTIVATE_PREEMPTION_TIMER = 1 << 6;
        /// Posted interrupts are processed.
        const PROCESS_POSTED_INTERRUPTS = 1 << 7;
        const _ = !0;
    }

    /// Primary processor-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Proc: u32 {
        /// A VM exit as soon as RFLAGS.IF is 1 and nothing blocks.
        const INTERRUPT_WINDOW_EXITING = 1 << 2;
        /// RDTSC and the like add the TSC offset.
        const USE_TSC_OFFSETTING = 1 << 3;
        /// HLT exits.
        const HLT_EXITING = 1 << 7;
        /// INVLPG exits.
        const INVLPG_EXITING = 1 << 9;
        /// MWAIT exits.
        const MWAIT_EXITING = 1 << 10;
        /// RDPMC exits.
        const RDPMC_EXITING = 1 << 11;
        /// RDTSC and RDTSCP exit.
        const RDTSC_EXITING = 1 << 12;
        /// MOV to CR3 exits.
        const CR3_LOAD_EXITING = 1 << 15;
        /// MOV from CR3 exits.
        const CR3_STORE_EXITING = 1 << 16;
        /// The tertiary controls are used.
        const ACTIVATE_TERTIARY_CONTROLS = 1 << 17;
        /// MOV to CR8 exits.
        const CR8_LOAD_EXITING = 1 << 19;
        /// MOV from CR8 exits.
        const CR8_STORE_EXITING = 1 << 20;
        /// The virtual-APIC page's TPR is used.
        const USE_TPR_SHADOW = 1 << 21;
        /// A VM exit as soon as virtual NMIs are not blocked.
        const NMI_WINDOW_EXITING = 1 << 22;
        /// MOV DR exits.
        const MOV_DR_EXITING = 1 << 23;
        /// Every I/O instruction exits.
        const UNCONDITIONAL_IO_EXITING = 1 << 24;
        /// The I/O bitmaps say which I/O instructions exit.
        const USE_IO_BITMAPS = 1 << 25;
        /// The monitor trap flag.
        const MONITOR_TRAP_FLAG = 1 << 27;
        /// The MSR bitmap says which MSR accesses exit.
        const USE_MSR_BITMAPS = 1 << 28;
        /// MONITOR exits.
        const MONITOR_EXITING = 1 << 29;
        /// PAUSE exits.
        const PAUSE_EXITING = 1 << 30;
        /// The secondary controls are used.
        const ACTIVATE_SECONDARY_CONTROLS = 1 << 31;
        const _ = !0;
    }

    /// Secondary processor-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Proc2: u32 {
        /// Accesses to the APIC-access page are virtualised.
        const VIRTUALIZE_APIC_ACCESSES = 1 << 0;
        /// EPT.
        const ENABLE_EPT = 1 << 1;
        /// LGDT, LIDT, LLDT, LTR, SGDT, SIDT, SLDT, STR exit.
        const DESCRIPTOR_TABLE_EXITING = 1 << 2;
        /// RDTSCP does not #UD.
        const ENABLE_RDTSCP = 1 << 3;
        /// x2APIC MSRs are virtualised.
        const VIRTUALIZE_X2APIC_MODE = 1 << 4;
        /// VPID.
        const ENABLE_VPID = 1 << 5;
        /// WBINVD exits.
        const WBINVD_EXITING = 1 << 6;
        /// Unpaged and real mode in the guest.
        const UNRESTRICTED_GUEST = 1 << 7;
        /// APIC registers are read from the virtual-APIC page.
        const APIC_REGISTER_VIRTUALIZATION = 1 << 8;
        /// Virtual interrupts are evaluated and delivered.
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 9;
        /// A loop of PAUSEs exits.
        const PAUSE_LOOP_EXITING = 1 << 10;
        /// RDRAND exits.
        const RDRAND_EXITING = 1 << 11;
        /// INVPCID does not #UD.
        const ENABLE_INVPCID = 1 << 12;
        /// VMFUNC does not #UD.
        const ENABLE_VM_FUNCTIONS = 1 << 13;
        /// VMREAD and VMWRITE reach the shadow VMCS.
        const VMCS_SHADOWING = 1 << 14;
        /// ENCLS consults its bitmap.
        const ENABLE_ENCLS_EXITING = 1 << 15;
        /// RDSEED exits.
        const RDSEED_EXITING = 1 << 16;
        /// Page-modification logging.
        const ENABLE_PML = 1 << 17;
        /// EPT violations can be #VE.
        const EPT_VIOLATION_VE = 1 << 18;
        /// PT hides that the CPU is in VMX non-root operation.
        const CONCEAL_VMX_FROM_PT = 1 << 19;
        /// XSAVES and XRSTORS do not #UD.
        const ENABLE_XSAVES_XRSTORS = 1 << 20;
        /// PASID translation.
        const PASID_TRANSLATION = 1 << 21;
        /// Execute rights differ for supervisor and user linear addresses.
        const MODE_BASED_EXECUTE_CONTROL = 1 << 22;
        /// Sub-page write permissions.
        const SUB_PAGE_WRITE_PERMISSIONS = 1 << 23;
        /// PT output addresses are guest-physical.
        const PT_USES_GUEST_PHYSICAL_ADDRESSES = 1 << 24;
        /// The TSC multiplier is used.
        const USE_TSC_SCALING = 1 << 25;
        /// TPAUSE, UMONITOR and UMWAIT do not #UD.
        const ENABLE_USER_WAIT_AND_PAUSE = 1 << 26;
        /// PCONFIG does not #UD.
        const ENABLE_PCONFIG = 1 << 27;
        /// ENCLV consults its bitmap.
        const ENABLE_ENCLV_EXITING = 1 << 28;
        /// Bus-lock detection exits.
        const BUS_LOCK_DETECTION = 1 << 30;
        /// Instructions that take too long exit.
        const INSTRUCTION_TIMEOUT = 1 << 31;
        const _ = !0;
    }

    /// Tertiary processor-based VM-execution controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Proc3: u64 {
        /// LOADIWKEY exits.
        const LOADIWKEY_EXITING = 1 << 0;
        /// Hypervisor-managed linear-address translation.
        const ENABLE_HLAT = 1 << 1;
        /// EPT paging-write control.
        const EPT_PAGING_WRITE = 1 << 2;
        /// Guest-paging verification.
        const GUEST_PAGING_VERIFICATION = 1 << 3;
        /// IPI virtualisation.
        const IPI_VIRTUALIZATION = 1 << 4;
        /// RDMSRLIST and WRMSRLIST do not #UD.
        const ENABLE_MSR_LIST = 1 << 6;
        /// IA32_SPEC_CTRL is virtualised.
        const VIRTUALIZE_SPEC_CTRL = 1 << 7;
        const _ = !0;
    }

    /// Primary VM-exit controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Exit: u32 {
        /// DR7 and IA32_DEBUGCTL are saved.
        const SAVE_DEBUG_CONTROLS = 1 << 2;
        /// The host is in 64-bit mode.
        const HOST_ADDRESS_SPACE_SIZE = 1 << 9;
        /// IA32_PERF_GLOBAL_CTRL is loaded.
        const LOAD_PERF_GLOBAL_CTRL = 1 << 12;
        /// External interrupts are acknowledged.
        const ACKNOWLEDGE_INTERRUPT_ON_EXIT = 1 << 15;
        /// IA32_PAT is saved.
        const SAVE_PAT = 1 << 18;
        /// IA32_PAT is loaded.
        const LOAD_PAT = 1 << 19;
        /// IA32_EFER is saved.
        const SAVE_EFER = 1 << 20;
        /// IA32_EFER is loaded.
        const LOAD_EFER = 1 << 21;
        /// The VMX-preemption timer is saved.
        const SAVE_PREEMPTION_TIMER = 1 << 22;
        /// IA32_BNDCFGS is cleared.
        const CLEAR_BNDCFGS = 1 << 23;
        /// PT hides VM exits.
        const CONCEAL_VMX_FROM_PT = 1 << 24;
        /// IA32_RTIT_CTL is cleared.
        const CLEAR_RTIT_CTL = 1 << 25;
        /// IA32_LBR_CTL is cleared.
        const CLEAR_LBR_CTL = 1 << 26;
        /// UINV is cleared.
        const CLEAR_UINV = 1 << 27;
        /// CET state is loaded.
        const LOAD_CET_STATE = 1 << 28;
        /// IA32_PKRS is loaded.
        const LOAD_PKRS = 1 << 29;
        /// IA32_PERF_GLOBAL_CTRL is saved.
        const SAVE_PERF_GLOBAL_CTRL = 1 << 30;
        /// The secondary VM-exit controls are used.
        const ACTIVATE_SECONDARY_CONTROLS = 1 << 31;
        const _ = !0;
    }

    /// VM-entry controls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Entry: u32 {
        /// DR7 and IA32_DEBUGCTL are loaded.
        const LOAD_DEBUG_CONTROLS = 1 << 2;
        /// The guest is in IA-32e mode.
        const IA32E_MODE_GUEST = 1 << 9;
        /// The guest is in system-management mode.
        const ENTRY_TO_SMM = 1 << 10;
        /// The dual-monitor treatment ends.
        const DEACTIVATE_DUAL_MONITOR_TREATMENT = 1 << 11;
        /// IA32_PERF_GLOBAL_CTRL is loaded.
        const LOAD_PERF_GLOBAL_CTRL = 1 << 13;
        /// IA32_PAT is loaded.
        const LOAD_PAT = 1 << 14;
        /// IA32_EFER is loaded.
        const LOAD_EFER = 1 << 15;
        /// IA32_BNDCFGS is loaded.
        const LOAD_BNDCFGS = 1 << 16;
        /// PT hides VM entries.
        const CONCEAL_VMX_FROM_PT = 1 << 17;
        /// IA32_RTIT_CTL is loaded.
        const LOAD_RTIT_CTL = 1 << 18;
        /// UINV is loaded.
        const LOAD_UINV = 1 << 19;
        /// CET state is loaded.
        const LOAD_CET_STATE = 1 << 20;
        /// IA32_LBR_CTL is loaded.
        const LOAD_LBR_CTL = 1 << 21;
        /// IA32_PKRS is loaded.
        const LOAD_PKRS = 1 << 22;
        /// IA32_SPEC_CTRL is loaded.
        const LOAD_SPEC_CTRL = 1 << 24;
        const _ = !0;
    }
}
