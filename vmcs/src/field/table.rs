//! The rows.
//!
//! Columns: name, encoding, what a CPU must support for the field to exist, and the
//! field's [`Flow`](super::flow::Flow): how vmcs02 gets it, how vmcs12 gets it back, and what
//! L1 may do with it without an exit. A row whose flow is `NO_FLOW` is of a field that L1 is not
//! offered.

use super::Field;
use super::flow::{Back, Flow, Into02, On, Shadow};
use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};
use crate::needs::Needs;

/// What the table says of a field beside its encoding.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    pub(super) flow: Option<Flow>,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $encoding:literal, $needs:expr, $flow:expr;)*) => {
        /// The rows' numbers, so that each constant knows its own.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { $($name,)* COUNT }

        /// How many fields the table has.
        pub const FIELD_COUNT: usize = Number::COUNT as usize;

        $(
            #[doc = concat!("`", stringify!($name), "`, encoding ", stringify!($encoding), ".")]
            pub const $name: Field = Field { encoding: $encoding, index: Number::$name as u8 };
        )*

        /// Every field, in the order of the table (which is that of the
        /// encodings).
        pub const ALL: [Field; FIELD_COUNT] = [$($name,)*];

        pub(super) const ROWS: [Row; FIELD_COUNT] = [
            $(Row { name: stringify!($name), needs: $needs, flow: $flow },)*
        ];
    };
}

/// Always there.
const A: Needs = Needs::Nothing;
/// VMREAD alone says whether the CPU has it.
const ASK_CPU: Needs = Needs::AskCpu;
const fn pin(bit: Pin) -> Needs {
    Needs::Pin(bit)
}
const fn p1(bit: Proc) -> Needs {
    Needs::Proc(bit)
}
const fn p2(bit: Proc2) -> Needs {
    Needs::Proc2(bit)
}
const fn p3(bit: Proc3) -> Needs {
    Needs::Proc3(bit)
}
const fn ent(bit: Entry) -> Needs {
    Needs::Entry(bit)
}
const fn ex(bit: Exit) -> Needs {
    Needs::Exit(bit)
}

/// What the columns of a flow may be.
use Back::{L0Records as L0_RECORDS, Never as NEVER, WhenAsked as WHEN_ASKED};
use Into02::{
    Absent as ABSENT, Address as ADDRESS, Composed as COMPOSED, ControlWord as CONTROL_WORD,
    Copied as COPIED, Own as OWN,
};
use On::{
    Ept as EPT, SaveDebugControls as SAVE_DEBUG, SaveEfer as SAVE_EFER, SavePat as SAVE_PAT,
    SavePerfGlobalCtrl as SAVE_PERF, SavePreemptionTimer as SAVE_TIMER,
    VirtualInterruptDelivery as VIRTUAL_INTERRUPTS,
};
use Shadow::{No as NO, Read as R, ReadWrite as RW};

const NO_FLOW: Option<Flow> = None;
const fn flow(into02: Into02, back: Back, shadow: Shadow) -> Option<Flow> {
    flow_on(into02, back, On::Any, shadow)
}
const fn flow_on(into02: Into02, back: Back, on: On, shadow: Shadow) -> Option<Flow> {
    Some(Flow {
        into02,
        back,
        on,
        shadow,
    })
}

fields! {
    VIRTUAL_PROCESSOR_ID = 0x0000, p2(Proc2::ENABLE_VPID), flow(COMPOSED, NEVER, NO);
    POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x0002, pin(Pin::PROCESS_POSTED_INTERRUPTS), flow(COPIED, NEVER, R);
    EPTP_INDEX = 0x0004, p2(Proc2::EPT_VIOLATION_VE), flow(ABSENT, L0_RECORDS, NO);
    HLAT_PREFIX_SIZE = 0x0006, p3(Proc3::ENABLE_HLAT), NO_FLOW;
    LAST_PID_POINTER_INDEX = 0x0008, p3(Proc3::IPI_VIRTUALIZATION), NO_FLOW;
    GUEST_ES_SELECTOR = 0x0800, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_CS_SELECTOR = 0x0802, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_SS_SELECTOR = 0x0804, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_DS_SELECTOR = 0x0806, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_FS_SELECTOR = 0x0808, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_GS_SELECTOR = 0x080a, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_LDTR_SELECTOR = 0x080c, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_TR_SELECTOR = 0x080e, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_INTERRUPT_STATUS = 0x0810, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY), flow_on(COPIED, WHEN_ASKED, VIRTUAL_INTERRUPTS, RW);
    PML_INDEX = 0x0812, p2(Proc2::ENABLE_PML), flow(COPIED, L0_RECORDS, R);
    GUEST_UINV = 0x0814, ent(Entry::LOAD_UINV), NO_FLOW;
    HOST_ES_SELECTOR = 0x0c00, A, flow(OWN, NEVER, NO);
    HOST_CS_SELECTOR = 0x0c02, A, flow(OWN, NEVER, NO);
    HOST_SS_SELECTOR = 0x0c04, A, flow(OWN, NEVER, NO);
    HOST_DS_SELECTOR = 0x0c06, A, flow(OWN, NEVER, NO);
    HOST_FS_SELECTOR = 0x0c08, A, flow(OWN, NEVER, NO);
    HOST_GS_SELECTOR = 0x0c0a, A, flow(OWN, NEVER, NO);
    HOST_TR_SELECTOR = 0x0c0c, A, flow(OWN, NEVER, NO);
    IO_BITMAP_A = 0x2000, A, flow(ADDRESS, NEVER, NO);
    IO_BITMAP_B = 0x2002, A, flow(ADDRESS, NEVER, NO);
    MSR_BITMAP = 0x2004, p1(Proc::USE_MSR_BITMAPS), flow(COMPOSED, NEVER, NO);
    VM_EXIT_MSR_STORE_ADDRESS = 0x2006, A, flow(OWN, NEVER, NO);
    VM_EXIT_MSR_LOAD_ADDRESS = 0x2008, A, flow(OWN, NEVER, NO);
    VM_ENTRY_MSR_LOAD_ADDRESS = 0x200a, A, flow(OWN, NEVER, NO);
    EXECUTIVE_VMCS_POINTER = 0x200c, ASK_CPU, flow(ABSENT, NEVER, NO);
    PML_ADDRESS = 0x200e, p2(Proc2::ENABLE_PML), flow(ABSENT, NEVER, NO);
    TSC_OFFSET = 0x2010, A, flow(COPIED, NEVER, RW);
    VIRTUAL_APIC_ADDRESS = 0x2012, p1(Proc::USE_TPR_SHADOW), flow(ADDRESS, NEVER, NO);
    APIC_ACCESS_ADDRESS = 0x2014, p2(Proc2::VIRTUALIZE_APIC_ACCESSES), flow(ADDRESS, NEVER, NO);
    POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0x2016, pin(Pin::PROCESS_POSTED_INTERRUPTS), flow(ADDRESS, NEVER, NO);
    VM_FUNCTION_CONTROLS = 0x2018, p2(Proc2::ENABLE_VM_FUNCTIONS), flow(OWN, NEVER, NO);
    EPT_POINTER = 0x201a, p2(Proc2::ENABLE_EPT), flow(COMPOSED, L0_RECORDS, NO);
    EOI_EXIT_BITMAP_0 = 0x201c, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY), flow(COPIED, NEVER, RW);
    EOI_EXIT_BITMAP_1 = 0x201e, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY), flow(COPIED, NEVER, RW);
    EOI_EXIT_BITMAP_2 = 0x2020, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY), flow(COPIED, NEVER, RW);
    EOI_EXIT_BITMAP_3 = 0x2022, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY), flow(COPIED, NEVER, RW);
    EPTP_LIST_ADDRESS = 0x2024, Needs::EptpSwitching, flow(ABSENT, NEVER, NO);
    VMREAD_BITMAP_ADDRESS = 0x2026, p2(Proc2::VMCS_SHADOWING), flow(ADDRESS, NEVER, NO);
    VMWRITE_BITMAP_ADDRESS = 0x2028, p2(Proc2::VMCS_SHADOWING), flow(ADDRESS, NEVER, NO);
    VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS = 0x202a, p2(Proc2::EPT_VIOLATION_VE), flow(ABSENT, NEVER, NO);
    XSS_EXITING_BITMAP = 0x202c, p2(Proc2::ENABLE_XSAVES_XRSTORS), flow(COPIED, NEVER, RW);
    ENCLS_EXITING_BITMAP = 0x202e, p2(Proc2::ENABLE_ENCLS_EXITING), NO_FLOW;
    SUB_PAGE_PERMISSION_TABLE_POINTER = 0x2030, p2(Proc2::SUB_PAGE_WRITE_PERMISSIONS), NO_FLOW;
    TSC_MULTIPLIER = 0x2032, p2(Proc2::USE_TSC_SCALING), flow(COPIED, NEVER, R);
    TERTIARY_PROCESSOR_BASED_CONTROLS = 0x2034, p1(Proc::ACTIVATE_TERTIARY_CONTROLS), NO_FLOW;
    ENCLV_EXITING_BITMAP = 0x2036, p2(Proc2::ENABLE_ENCLV_EXITING), NO_FLOW;
    LOW_PASID_DIRECTORY_ADDRESS = 0x2038, p2(Proc2::PASID_TRANSLATION), NO_FLOW;
    HIGH_PASID_DIRECTORY_ADDRESS = 0x203a, p2(Proc2::PASID_TRANSLATION), NO_FLOW;
    SHARED_EPT_POINTER = 0x203c, Needs::Never, NO_FLOW;
    PCONFIG_EXITING_BITMAP = 0x203e, p2(Proc2::ENABLE_PCONFIG), NO_FLOW;
    HLAT_POINTER = 0x2040, p3(Proc3::ENABLE_HLAT), NO_FLOW;
    PID_POINTER_TABLE_ADDRESS = 0x2042, p3(Proc3::IPI_VIRTUALIZATION), NO_FLOW;
    SECONDARY_VM_EXIT_CONTROLS = 0x2044, ex(Exit::ACTIVATE_SECONDARY_CONTROLS), NO_FLOW;
    SPEC_CTRL_MASK = 0x204a, p3(Proc3::VIRTUALIZE_SPEC_CTRL), NO_FLOW;
    SPEC_CTRL_SHADOW = 0x204c, p3(Proc3::VIRTUALIZE_SPEC_CTRL), NO_FLOW;
    GUEST_PHYSICAL_ADDRESS = 0x2400, p2(Proc2::ENABLE_EPT), flow(ABSENT, WHEN_ASKED, R);
    VMCS_LINK_POINTER = 0x2800, A, flow(OWN, NEVER, NO);
    GUEST_IA32_DEBUGCTL = 0x2802, A, flow_on(COMPOSED, WHEN_ASKED, SAVE_DEBUG, NO);
    GUEST_IA32_PAT = 0x2804, ent(Entry::LOAD_PAT), flow_on(COMPOSED, WHEN_ASKED, SAVE_PAT, NO);
    GUEST_IA32_EFER = 0x2806, ent(Entry::LOAD_EFER), flow_on(COMPOSED, WHEN_ASKED, SAVE_EFER, NO);
    GUEST_IA32_PERF_GLOBAL_CTRL = 0x2808, ent(Entry::LOAD_PERF_GLOBAL_CTRL), flow_on(ABSENT, L0_RECORDS, SAVE_PERF, NO);
    GUEST_PDPTE0 = 0x280a, p2(Proc2::ENABLE_EPT), flow_on(COPIED, WHEN_ASKED, EPT, NO);
    GUEST_PDPTE1 = 0x280c, p2(Proc2::ENABLE_EPT), flow_on(COPIED, WHEN_ASKED, EPT, NO);
    GUEST_PDPTE2 = 0x280e, p2(Proc2::ENABLE_EPT), flow_on(COPIED, WHEN_ASKED, EPT, NO);
    GUEST_PDPTE3 = 0x2810, p2(Proc2::ENABLE_EPT), flow_on(COPIED, WHEN_ASKED, EPT, NO);
    GUEST_IA32_BNDCFGS = 0x2812, ent(Entry::LOAD_BNDCFGS), NO_FLOW;
    GUEST_IA32_RTIT_CTL = 0x2814, ent(Entry::LOAD_RTIT_CTL), NO_FLOW;
    GUEST_IA32_LBR_CTL = 0x2816, ent(Entry::LOAD_LBR_CTL), NO_FLOW;
    GUEST_IA32_PKRS = 0x2818, ent(Entry::LOAD_PKRS), NO_FLOW;
    GUEST_IA32_SPEC_CTRL = 0x282e, ent(Entry::LOAD_SPEC_CTRL), NO_FLOW;
    HOST_IA32_PAT = 0x2c00, ex(Exit::LOAD_PAT), flow(OWN, NEVER, NO);
    HOST_IA32_EFER = 0x2c02, ex(Exit::LOAD_EFER), flow(OWN, NEVER, NO);
    HOST_IA32_PERF_GLOBAL_CTRL = 0x2c04, ex(Exit::LOAD_PERF_GLOBAL_CTRL), flow(ABSENT, NEVER, NO);
    HOST_IA32_PKRS = 0x2c06, ex(Exit::LOAD_PKRS), NO_FLOW;
    HOST_IA32_SPEC_CTRL = 0x2c1a, ex(Exit::ACTIVATE_SECONDARY_CONTROLS), NO_FLOW;
    PIN_BASED_CONTROLS = 0x4000, A, flow(CONTROL_WORD, NEVER, NO);
    PRIMARY_PROCESSOR_BASED_CONTROLS = 0x4002, A, flow(CONTROL_WORD, NEVER, NO);
    EXCEPTION_BITMAP = 0x4004, A, flow(COPIED, NEVER, R);
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006, A, flow(COPIED, NEVER, R);
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008, A, flow(COPIED, NEVER, R);
    CR3_TARGET_COUNT = 0x400a, A, flow(COPIED, NEVER, R);
    PRIMARY_VM_EXIT_CONTROLS = 0x400c, A, flow(CONTROL_WORD, NEVER, NO);
    VM_EXIT_MSR_STORE_COUNT = 0x400e, A, flow(COMPOSED, NEVER, NO);
    VM_EXIT_MSR_LOAD_COUNT = 0x4010, A, flow(OWN, NEVER, NO);
    VM_ENTRY_CONTROLS = 0x4012, A, flow(CONTROL_WORD, L0_RECORDS, NO);
    VM_ENTRY_MSR_LOAD_COUNT = 0x4014, A, flow(OWN, NEVER, NO);
    VM_ENTRY_INTERRUPTION_INFORMATION = 0x4016, A, flow(COPIED, L0_RECORDS, RW);
    VM_ENTRY_EXCEPTION_ERROR_CODE = 0x4018, A, flow(COPIED, NEVER, RW);
    VM_ENTRY_INSTRUCTION_LENGTH = 0x401a, A, flow(COPIED, NEVER, RW);
    TPR_THRESHOLD = 0x401c, p1(Proc::USE_TPR_SHADOW), flow(COPIED, NEVER, R);
    SECONDARY_PROCESSOR_BASED_CONTROLS = 0x401e, p1(Proc::ACTIVATE_SECONDARY_CONTROLS), flow(CONTROL_WORD, NEVER, NO);
    PLE_GAP = 0x4020, p2(Proc2::PAUSE_LOOP_EXITING), flow(COPIED, NEVER, RW);
    PLE_WINDOW = 0x4022, p2(Proc2::PAUSE_LOOP_EXITING), flow(COPIED, NEVER, RW);
    INSTRUCTION_TIMEOUT_CONTROL = 0x4024, p2(Proc2::INSTRUCTION_TIMEOUT), NO_FLOW;
    VM_INSTRUCTION_ERROR = 0x4400, A, flow(ABSENT, L0_RECORDS, NO);
    EXIT_REASON = 0x4402, A, flow(ABSENT, L0_RECORDS, R);
    VM_EXIT_INTERRUPTION_INFORMATION = 0x4404, A, flow(ABSENT, WHEN_ASKED, R);
    VM_EXIT_INTERRUPTION_ERROR_CODE = 0x4406, A, flow(ABSENT, WHEN_ASKED, R);
    IDT_VECTORING_INFORMATION = 0x4408, A, flow(ABSENT, WHEN_ASKED, R);
    IDT_VECTORING_ERROR_CODE = 0x440a, A, flow(ABSENT, WHEN_ASKED, R);
    VM_EXIT_INSTRUCTION_LENGTH = 0x440c, A, flow(ABSENT, WHEN_ASKED, R);
    VM_EXIT_INSTRUCTION_INFORMATION = 0x440e, A, flow(ABSENT, WHEN_ASKED, R);
    GUEST_ES_LIMIT = 0x4800, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_CS_LIMIT = 0x4802, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_SS_LIMIT = 0x4804, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_DS_LIMIT = 0x4806, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_FS_LIMIT = 0x4808, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_GS_LIMIT = 0x480a, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_LDTR_LIMIT = 0x480c, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_TR_LIMIT = 0x480e, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_GDTR_LIMIT = 0x4810, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_IDTR_LIMIT = 0x4812, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_ES_ACCESS_RIGHTS = 0x4814, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_CS_ACCESS_RIGHTS = 0x4816, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_SS_ACCESS_RIGHTS = 0x4818, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_DS_ACCESS_RIGHTS = 0x481a, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_FS_ACCESS_RIGHTS = 0x481c, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_GS_ACCESS_RIGHTS = 0x481e, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_LDTR_ACCESS_RIGHTS = 0x4820, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_TR_ACCESS_RIGHTS = 0x4822, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_INTERRUPTIBILITY_STATE = 0x4824, A, flow(COPIED, WHEN_ASKED, RW);
    GUEST_ACTIVITY_STATE = 0x4826, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_SMBASE = 0x4828, ASK_CPU, flow(ABSENT, NEVER, NO);
    GUEST_IA32_SYSENTER_CS = 0x482a, A, flow(COPIED, WHEN_ASKED, R);
    VMX_PREEMPTION_TIMER_VALUE = 0x482e, pin(Pin::ACTIVATE_PREEMPTION_TIMER), flow_on(COPIED, WHEN_ASKED, SAVE_TIMER, RW);
    HOST_IA32_SYSENTER_CS = 0x4c00, A, flow(OWN, NEVER, NO);
    CR0_GUEST_HOST_MASK = 0x6000, A, flow(COPIED, NEVER, RW);
    CR4_GUEST_HOST_MASK = 0x6002, A, flow(COPIED, NEVER, RW);
    CR0_READ_SHADOW = 0x6004, A, flow(COPIED, NEVER, RW);
    CR4_READ_SHADOW = 0x6006, A, flow(COPIED, NEVER, RW);
    CR3_TARGET_VALUE_0 = 0x6008, ASK_CPU, flow(COPIED, NEVER, NO);
    CR3_TARGET_VALUE_1 = 0x600a, ASK_CPU, flow(COPIED, NEVER, NO);
    CR3_TARGET_VALUE_2 = 0x600c, ASK_CPU, flow(COPIED, NEVER, NO);
    CR3_TARGET_VALUE_3 = 0x600e, ASK_CPU, flow(COPIED, NEVER, NO);
    EXIT_QUALIFICATION = 0x6400, A, flow(ABSENT, WHEN_ASKED, R);
    IO_RCX = 0x6402, ASK_CPU, flow(ABSENT, WHEN_ASKED, NO);
    IO_RSI = 0x6404, ASK_CPU, flow(ABSENT, WHEN_ASKED, NO);
    IO_RDI = 0x6406, ASK_CPU, flow(ABSENT, WHEN_ASKED, NO);
    IO_RIP = 0x6408, ASK_CPU, flow(ABSENT, WHEN_ASKED, NO);
    GUEST_LINEAR_ADDRESS = 0x640a, A, flow(ABSENT, WHEN_ASKED, R);
    GUEST_CR0 = 0x6800, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_CR3 = 0x6802, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_CR4 = 0x6804, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_ES_BASE = 0x6806, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_CS_BASE = 0x6808, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_SS_BASE = 0x680a, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_DS_BASE = 0x680c, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_FS_BASE = 0x680e, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_GS_BASE = 0x6810, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_LDTR_BASE = 0x6812, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_TR_BASE = 0x6814, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_GDTR_BASE = 0x6816, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_IDTR_BASE = 0x6818, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_DR7 = 0x681a, A, flow_on(COMPOSED, WHEN_ASKED, SAVE_DEBUG, NO);
    GUEST_RSP = 0x681c, A, flow(COPIED, WHEN_ASKED, RW);
    GUEST_RIP = 0x681e, A, flow(COPIED, WHEN_ASKED, RW);
    GUEST_RFLAGS = 0x6820, A, flow(COPIED, WHEN_ASKED, RW);
    GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_IA32_SYSENTER_ESP = 0x6824, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_IA32_SYSENTER_EIP = 0x6826, A, flow(COPIED, WHEN_ASKED, R);
    GUEST_IA32_S_CET = 0x6828, ent(Entry::LOAD_CET_STATE), NO_FLOW;
    GUEST_SSP = 0x682a, ent(Entry::LOAD_CET_STATE), NO_FLOW;
    GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR = 0x682c, ent(Entry::LOAD_CET_STATE), NO_FLOW;
    HOST_CR0 = 0x6c00, A, flow(OWN, NEVER, NO);
    HOST_CR3 = 0x6c02, A, flow(OWN, NEVER, NO);
    HOST_CR4 = 0x6c04, A, flow(OWN, NEVER, NO);
    HOST_FS_BASE = 0x6c06, A, flow(OWN, NEVER, NO);
    HOST_GS_BASE = 0x6c08, A, flow(OWN, NEVER, NO);
    HOST_TR_BASE = 0x6c0a, A, flow(OWN, NEVER, NO);
    HOST_GDTR_BASE = 0x6c0c, A, flow(OWN, NEVER, NO);
    HOST_IDTR_BASE = 0x6c0e, A, flow(OWN, NEVER, NO);
    HOST_IA32_SYSENTER_ESP = 0x6c10, A, flow(OWN, NEVER, NO);
    HOST_IA32_SYSENTER_EIP = 0x6c12, A, flow(OWN, NEVER, NO);
    HOST_RSP = 0x6c14, A, flow(OWN, NEVER, NO);
    HOST_RIP = 0x6c16, A, flow(OWN, NEVER, NO);
    HOST_IA32_S_CET = 0x6c18, ex(Exit::LOAD_CET_STATE), NO_FLOW;
    HOST_SSP = 0x6c1a, ex(Exit::LOAD_CET_STATE), NO_FLOW;
    HOST_IA32_INTERRUPT_SSP_TABLE_ADDR = 0x6c1c, ex(Exit::LOAD_CET_STATE), NO_FLOW;
}
