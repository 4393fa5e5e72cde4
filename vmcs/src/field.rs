//! The field table: one row a field. SDM "Field Encoding in VMCS".
//!
//! From the rows come the constants, the names, the index that [`Vmcs12`]
//! stores a field under, and the look-up by encoding.
//!
//! [`Vmcs12`]: crate::Vmcs12

use crate::caps::Needs;
use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};

/// How wide a field is. Bits 14:13 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    W16,
    /// 64 bits, with a second encoding for the upper 32.
    W64,
    /// 32 bits.
    W32,
    /// As wide as a linear address: 64 bits on every CPU Umbra runs on.
    Natural,
}

/// What a field is for. Bits 11:10 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// VM-execution, VM-exit and VM-entry controls.
    Control,
    /// VM-exit information: read-only unless the CPU allows writes to all.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// One field of the VMCS.
///
/// Made only by the table in this module, so its index is always below
/// [`FIELD_COUNT`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field {
    encoding: u16,
    index: u8,
}

impl Field {
    /// The encoding that VMREAD and VMWRITE take (full access).
    #[inline]
    pub const fn encoding(self) -> u32 {
        self.encoding as u32
    }

    /// The row's number in the table.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The field's width.
    #[inline]
    pub const fn width(self) -> Width {
        match (self.encoding >> 13) & 3 {
            0 => Width::W16,
            1 => Width::W64,
            2 => Width::W32,
            _ => Width::Natural,
        }
    }

    /// The field's area.
    #[inline]
    pub const fn area(self) -> Area {
        match (self.encoding >> 10) & 3 {
            0 => Area::Control,
            1 => Area::ExitInformation,
            2 => Area::Guest,
            _ => Area::Host,
        }
    }

    /// Whether the field is one of VM-exit information.
    #[inline]
    pub const fn is_read_only(self) -> bool {
        (self.encoding >> 10) & 3 == 1
    }

    /// The bits a value of this field can have.
    #[inline]
    pub const fn value_mask(self) -> u64 {
        match self.width() {
            Width::W16 => 0xffff,
            Width::W32 => 0xffff_ffff,
            Width::W64 | Width::Natural => u64::MAX,
        }
    }

    /// The SDM's name of the field, in capitals.
    pub const fn name(self) -> &'static str {
        ROWS[self.index as usize].name
    }

    /// What a CPU must support for the field to exist.
    pub const fn needs(self) -> Needs {
        ROWS[self.index as usize].needs
    }

    /// The field and whether `encoding` names its upper half.
    ///
    /// `None` for an encoding that no row has, one with reserved bits set, and
    /// the "high" access type of a field that is not 64 bits wide.
    #[inline]
    pub const fn from_encoding(encoding: u64) -> Option<(Field, HighHalf)> {
        // Bits 31:15 and 12 are reserved, as is anything above bit 31 (a
        // 64-bit register operand has to be zero there).
        if encoding & !0x6fff != 0 {
            return None;
        }
        let encoding = encoding as u16;
        let high = encoding & 1 != 0;
        let ordinal = (encoding >> 1) & 0x1ff;
        if ordinal >= ORDINALS as u16 {
            return None;
        }
        let class = ((encoding >> 13) & 3) << 2 | (encoding >> 10) & 3;
        let index = BY_ENCODING[class as usize][ordinal as usize];
        if index == NO_FIELD {
            return None;
        }
        let field = ALL[index as usize];
        if high && !matches!(field.width(), Width::W64) {
            return None;
        }
        Some((field, high))
    }
}

impl core::fmt::Debug for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether an encoding names the upper 32 bits of a 64-bit field.
pub type HighHalf = bool;

/// What the table says of a field beside its encoding.
struct Row {
    name: &'static str,
    needs: Needs,
}

const NO_FIELD: u8 = u8::MAX;
/// One more than the largest index (bits 9:1 of an encoding) of any row.
const ORDINALS: usize = 64;

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $encoding:literal, $needs:expr;)*) => {
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

        static ROWS: [Row; FIELD_COUNT] = [
            $(Row { name: stringify!($name), needs: $needs },)*
        ];
    };
}

/// Always there.
const A: Needs = Needs::Nothing;
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

fields! {
    VIRTUAL_PROCESSOR_ID = 0x0000, p2(Proc2::ENABLE_VPID);
    POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x0002, pin(Pin::PROCESS_POSTED_INTERRUPTS);
    EPTP_INDEX = 0x0004, p2(Proc2::EPT_VIOLATION_VE);
    HLAT_PREFIX_SIZE = 0x0006, p3(Proc3::ENABLE_HLAT);
    LAST_PID_POINTER_INDEX = 0x0008, p3(Proc3::IPI_VIRTUALIZATION);
    GUEST_ES_SELECTOR = 0x0800, A;
    GUEST_CS_SELECTOR = 0x0802, A;
    GUEST_SS_SELECTOR = 0x0804, A;
    GUEST_DS_SELECTOR = 0x0806, A;
    GUEST_FS_SELECTOR = 0x0808, A;
    GUEST_GS_SELECTOR = 0x080a, A;
    GUEST_LDTR_SELECTOR = 0x080c, A;
    GUEST_TR_SELECTOR = 0x080e, A;
    GUEST_INTERRUPT_STATUS = 0x0810, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    PML_INDEX = 0x0812, p2(Proc2::ENABLE_PML);
    GUEST_UINV = 0x0814, ent(Entry::LOAD_UINV);
    HOST_ES_SELECTOR = 0x0c00, A;
    HOST_CS_SELECTOR = 0x0c02, A;
    HOST_SS_SELECTOR = 0x0c04, A;
    HOST_DS_SELECTOR = 0x0c06, A;
    HOST_FS_SELECTOR = 0x0c08, A;
    HOST_GS_SELECTOR = 0x0c0a, A;
    HOST_TR_SELECTOR = 0x0c0c, A;
    IO_BITMAP_A = 0x2000, A;
    IO_BITMAP_B = 0x2002, A;
    MSR_BITMAP = 0x2004, p1(Proc::USE_MSR_BITMAPS);
    VM_EXIT_MSR_STORE_ADDRESS = 0x2006, A;
    VM_EXIT_MSR_LOAD_ADDRESS = 0x2008, A;
    VM_ENTRY_MSR_LOAD_ADDRESS = 0x200a, A;
    EXECUTIVE_VMCS_POINTER = 0x200c, A;
    PML_ADDRESS = 0x200e, p2(Proc2::ENABLE_PML);
    TSC_OFFSET = 0x2010, A;
    VIRTUAL_APIC_ADDRESS = 0x2012, p1(Proc::USE_TPR_SHADOW);
    APIC_ACCESS_ADDRESS = 0x2014, p2(Proc2::VIRTUALIZE_APIC_ACCESSES);
    POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0x2016, pin(Pin::PROCESS_POSTED_INTERRUPTS);
    VM_FUNCTION_CONTROLS = 0x2018, p2(Proc2::ENABLE_VM_FUNCTIONS);
    EPT_POINTER = 0x201a, p2(Proc2::ENABLE_EPT);
    EOI_EXIT_BITMAP_0 = 0x201c, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    EOI_EXIT_BITMAP_1 = 0x201e, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    EOI_EXIT_BITMAP_2 = 0x2020, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    EOI_EXIT_BITMAP_3 = 0x2022, p2(Proc2::VIRTUAL_INTERRUPT_DELIVERY);
    EPTP_LIST_ADDRESS = 0x2024, Needs::EptpSwitching;
    VMREAD_BITMAP_ADDRESS = 0x2026, p2(Proc2::VMCS_SHADOWING);
    VMWRITE_BITMAP_ADDRESS = 0x2028, p2(Proc2::VMCS_SHADOWING);
    VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS = 0x202a, p2(Proc2::EPT_VIOLATION_VE);
    XSS_EXITING_BITMAP = 0x202c, p2(Proc2::ENABLE_XSAVES_XRSTORS);
    ENCLS_EXITING_BITMAP = 0x202e, p2(Proc2::ENABLE_ENCLS_EXITING);
    SUB_PAGE_PERMISSION_TABLE_POINTER = 0x2030, p2(Proc2::SUB_PAGE_WRITE_PERMISSIONS);
    TSC_MULTIPLIER = 0x2032, p2(Proc2::USE_TSC_SCALING);
    TERTIARY_PROCESSOR_BASED_CONTROLS = 0x2034, p1(Proc::ACTIVATE_TERTIARY_CONTROLS);
    ENCLV_EXITING_BITMAP = 0x2036, p2(Proc2::ENABLE_ENCLV_EXITING);
    LOW_PASID_DIRECTORY_ADDRESS = 0x2038, p2(Proc2::PASID_TRANSLATION);
    HIGH_PASID_DIRECTORY_ADDRESS = 0x203a, p2(Proc2::PASID_TRANSLATION);
    SHARED_EPT_POINTER = 0x203c, Needs::Never;
    PCONFIG_EXITING_BITMAP = 0x203e, p2(Proc2::ENABLE_PCONFIG);
    HLAT_POINTER = 0x2040, p3(Proc3::ENABLE_HLAT);
    PID_POINTER_TABLE_ADDRESS = 0x2042, p3(Proc3::IPI_VIRTUALIZATION);
    SECONDARY_VM_EXIT_CONTROLS = 0x2044, ex(Exit::ACTIVATE_SECONDARY_CONTROLS);
    SPEC_CTRL_MASK = 0x204a, p3(Proc3::VIRTUALIZE_SPEC_CTRL);
    SPEC_CTRL_SHADOW = 0x204c, p3(Proc3::VIRTUALIZE_SPEC_CTRL);
    GUEST_PHYSICAL_ADDRESS = 0x2400, p2(Proc2::ENABLE_EPT);
    VMCS_LINK_POINTER = 0x2800, A;
    GUEST_IA32_DEBUGCTL = 0x2802, A;
    GUEST_IA32_PAT = 0x2804, ent(Entry::LOAD_PAT);
    GUEST_IA32_EFER = 0x2806, ent(Entry::LOAD_EFER);
    GUEST_IA32_PERF_GLOBAL_CTRL = 0x2808, ent(Entry::LOAD_PERF_GLOBAL_CTRL);
    GUEST_PDPTE0 = 0x280a, p2(Proc2::ENABLE_EPT);
    GUEST_PDPTE1 = 0x280c, p2(Proc2::ENABLE_EPT);
    GUEST_PDPTE2 = 0x280e, p2(Proc2::ENABLE_EPT);
    GUEST_PDPTE3 = 0x2810, p2(Proc2::ENABLE_EPT);
    GUEST_IA32_BNDCFGS = 0x2812, ent(Entry::LOAD_BNDCFGS);
    GUEST_IA32_RTIT_CTL = 0x2814, ent(Entry::LOAD_RTIT_CTL);
    GUEST_IA32_LBR_CTL = 0x2816, ent(Entry::LOAD_LBR_CTL);
    GUEST_IA32_PKRS = 0x2818, ent(Entry::LOAD_PKRS);
    GUEST_IA32_SPEC_CTRL = 0x282e, ent(Entry::LOAD_SPEC_CTRL);
    HOST_IA32_PAT = 0x2c00, ex(Exit::LOAD_PAT);
    HOST_IA32_EFER = 0x2c02, ex(Exit::LOAD_EFER);
    HOST_IA32_PERF_GLOBAL_CTRL = 0x2c04, ex(Exit::LOAD_PERF_GLOBAL_CTRL);
    HOST_IA32_PKRS = 0x2c06, ex(Exit::LOAD_PKRS);
    HOST_IA32_SPEC_CTRL = 0x2c1a, ex(Exit::ACTIVATE_SECONDARY_CONTROLS);
    PIN_BASED_CONTROLS = 0x4000, A;
    PRIMARY_PROCESSOR_BASED_CONTROLS = 0x4002, A;
    EXCEPTION_BITMAP = 0x4004, A;
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006, A;
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008, A;
    CR3_TARGET_COUNT = 0x400a, A;
    PRIMARY_VM_EXIT_CONTROLS = 0x400c, A;
    VM_EXIT_MSR_STORE_COUNT = 0x400e, A;
    VM_EXIT_MSR_LOAD_COUNT = 0x4010, A;
    VM_ENTRY_CONTROLS = 0x4012, A;
    VM_ENTRY_MSR_LOAD_COUNT = 0x4014, A;
    VM_ENTRY_INTERRUPTION_INFORMATION = 0x4016, A;
    VM_ENTRY_EXCEPTION_ERROR_CODE = 0x4018, A;
    VM_ENTRY_INSTRUCTION_LENGTH = 0x401a, A;
    TPR_THRESHOLD = 0x401c, p1(Proc::USE_TPR_SHADOW);
    SECONDARY_PROCESSOR_BASED_CONTROLS = 0x401e, p1(Proc::ACTIVATE_SECONDARY_CONTROLS);
    PLE_GAP = 0x4020, p2(Proc2::PAUSE_LOOP_EXITING);
    PLE_WINDOW = 0x4022, p2(Proc2::PAUSE_LOOP_EXITING);
    INSTRUCTION_TIMEOUT_CONTROL = 0x4024, p2(Proc2::INSTRUCTION_TIMEOUT);
    VM_INSTRUCTION_ERROR = 0x4400, A;
    EXIT_REASON = 0x4402, A;
    VM_EXIT_INTERRUPTION_INFORMATION = 0x4404, A;
    VM_EXIT_INTERRUPTION_ERROR_CODE = 0x4406, A;
    IDT_VECTORING_INFORMATION = 0x4408, A;
    IDT_VECTORING_ERROR_CODE = 0x440a, A;
    VM_EXIT_INSTRUCTION_LENGTH = 0x440c, A;
    VM_EXIT_INSTRUCTION_INFORMATION = 0x440e, A;
    GUEST_ES_LIMIT = 0x4800, A;
    GUEST_CS_LIMIT = 0x4802, A;
    GUEST_SS_LIMIT = 0x4804, A;
    GUEST_DS_LIMIT = 0x4806, A;
    GUEST_FS_LIMIT = 0x4808, A;
    GUEST_GS_LIMIT = 0x480a, A;
    GUEST_LDTR_LIMIT = 0x480c, A;
    GUEST_TR_LIMIT = 0x480e, A;
    GUEST_GDTR_LIMIT = 0x4810, A;
    GUEST_IDTR_LIMIT = 0x4812, A;
    GUEST_ES_ACCESS_RIGHTS = 0x4814, A;
    GUEST_CS_ACCESS_RIGHTS = 0x4816, A;
    GUEST_SS_ACCESS_RIGHTS = 0x4818, A;
    GUEST_DS_ACCESS_RIGHTS = 0x481a, A;
    GUEST_FS_ACCESS_RIGHTS = 0x481c, A;
    GUEST_GS_ACCESS_RIGHTS = 0x481e, A;
    GUEST_LDTR_ACCESS_RIGHTS = 0x4820, A;
    GUEST_TR_ACCESS_RIGHTS = 0x4822, A;
    GUEST_INTERRUPTIBILITY_STATE = 0x4824, A;
    GUEST_ACTIVITY_STATE = 0x4826, A;
    GUEST_SMBASE = 0x4828, A;
    GUEST_IA32_SYSENTER_CS = 0x482a, A;
    VMX_PREEMPTION_TIMER_VALUE = 0x482e, pin(Pin::ACTIVATE_PREEMPTION_TIMER);
    HOST_IA32_SYSENTER_CS = 0x4c00, A;
    CR0_GUEST_HOST_MASK = 0x6000, A;
    CR4_GUEST_HOST_MASK = 0x6002, A;
    CR0_READ_SHADOW = 0x6004, A;
    CR4_READ_SHADOW = 0x6006, A;
    CR3_TARGET_VALUE_0 = 0x6008, A;
    CR3_TARGET_VALUE_1 = 0x600a, A;
    CR3_TARGET_VALUE_2 = 0x600c, A;
    CR3_TARGET_VALUE_3 = 0x600e, A;
    EXIT_QUALIFICATION = 0x6400, A;
    IO_RCX = 0x6402, A;
    IO_RSI = 0x6404, A;
    IO_RDI = 0x6406, A;
    IO_RIP = 0x6408, A;
    GUEST_LINEAR_ADDRESS = 0x640a, A;
    GUEST_CR0 = 0x6800, A;
    GUEST_CR3 = 0x6802, A;
    GUEST_CR4 = 0x6804, A;
    GUEST_ES_BASE = 0x6806, A;
    GUEST_CS_BASE = 0x6808, A;
    GUEST_SS_BASE = 0x680a, A;
    GUEST_DS_BASE = 0x680c, A;
    GUEST_FS_BASE = 0x680e, A;
    GUEST_GS_BASE = 0x6810, A;
    GUEST_LDTR_BASE = 0x6812, A;
    GUEST_TR_BASE = 0x6814, A;
    GUEST_GDTR_BASE = 0x6816, A;
    GUEST_IDTR_BASE = 0x6818, A;
    GUEST_DR7 = 0x681a, A;
    GUEST_RSP = 0x681c, A;
    GUEST_RIP = 0x681e, A;
    GUEST_RFLAGS = 0x6820, A;
    GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822, A;
    GUEST_IA32_SYSENTER_ESP = 0x6824, A;
    GUEST_IA32_SYSENTER_EIP = 0x6826, A;
    GUEST_IA32_S_CET = 0x6828, ent(Entry::LOAD_CET_STATE);
    GUEST_SSP = 0x682a, ent(Entry::LOAD_CET_STATE);
    GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR = 0x682c, ent(Entry::LOAD_CET_STATE);
    HOST_CR0 = 0x6c00, A;
    HOST_CR3 = 0x6c02, A;
    HOST_CR4 = 0x6c04, A;
    HOST_FS_BASE = 0x6c06, A;
    HOST_GS_BASE = 0x6c08, A;
    HOST_TR_BASE = 0x6c0a, A;
    HOST_GDTR_BASE = 0x6c0c, A;
    HOST_IDTR_BASE = 0x6c0e, A;
    HOST_IA32_SYSENTER_ESP = 0x6c10, A;
    HOST_IA32_SYSENTER_EIP = 0x6c12, A;
    HOST_RSP = 0x6c14, A;
    HOST_RIP = 0x6c16, A;
    HOST_IA32_S_CET = 0x6c18, ex(Exit::LOAD_CET_STATE);
    HOST_SSP = 0x6c1a, ex(Exit::LOAD_CET_STATE);
    HOST_IA32_INTERRUPT_SSP_TABLE_ADDR = 0x6c1c, ex(Exit::LOAD_CET_STATE);
}

/// The rows' numbers by width and area (bits 14:13 and 11:10) and ordinal
/// (bits 9:1).
static BY_ENCODING: [[u8; ORDINALS]; 16] = by_encoding();

const fn by_encoding() -> [[u8; ORDINALS]; 16] {
    let mut table = [[NO_FIELD; ORDINALS]; 16];
    let mut i = 0;
    while i < FIELD_COUNT {
        let e = ALL[i].encoding;
        assert!(e & 1 == 0 && e & !0x6ffe == 0, "not a full-access encoding");
        let class = (((e >> 13) & 3) << 2 | (e >> 10) & 3) as usize;
        let ordinal = ((e >> 1) & 0x1ff) as usize;
        assert!(table[class][ordinal] == NO_FIELD, "two rows, one encoding");
        table[class][ordinal] = i as u8;
        i += 1;
    }
    table
}

/// A set of fields, one bit a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldSet([u64; FIELD_COUNT.div_ceil(64)]);

impl FieldSet {
    /// No field.
    pub const EMPTY: Self = Self([0; FIELD_COUNT.div_ceil(64)]);
    /// Every field.
    pub const FULL: Self = Self([u64::MAX; FIELD_COUNT.div_ceil(64)]);

    /// The set of the fields given.
    pub const fn of(fields: &[Field]) -> Self {
        let mut set = Self::EMPTY;
        let mut i = 0;
        while i < fields.len() {
            let n = fields[i].index();
            set.0[n / 64] |= 1 << (n % 64);
            i += 1;
        }
        set
    }

    /// Both sets' fields.
    pub const fn union(self, other: Self) -> Self {
        let mut out = self;
        let mut i = 0;
        while i < out.0.len() {
            out.0[i] |= other.0[i];
            i += 1;
        }
        out
    }

    /// Adds a field.
    #[inline]
    pub fn insert(&mut self, field: Field) {
        self.0[field.index() / 64] |= 1 << (field.index() % 64);
    }

    /// Takes a field out.
    #[inline]
    pub fn remove(&mut self, field: Field) {
        self.0[field.index() / 64] &= !(1 << (field.index() % 64));
    }

    /// Whether the field is in the set.
    #[inline]
    pub const fn contains(&self, field: Field) -> bool {
        self.0[field.index() / 64] & (1 << (field.index() % 64)) != 0
    }

    /// Whether the two sets share a field.
    #[inline]
    pub const fn intersects(&self, other: &Self) -> bool {
        let mut i = 0;
        while i < self.0.len() {
            if self.0[i] & other.0[i] != 0 {
                return true;
            }
            i += 1;
        }
        false
    }

    /// Whether no field is in the set.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        let mut i = 0;
        while i < self.0.len() {
            if self.0[i] != 0 {
                return false;
            }
            i += 1;
        }
        true
    }

    /// Calls `f` for every field that both sets have and leaves this set
    /// without them.
    #[inline]
    pub fn drain_within(&mut self, within: &Self, mut f: impl FnMut(Field)) {
        for word in 0..self.0.len() {
            let mut bits = self.0[word] & within.0[word];
            self.0[word] &= !within.0[word];
            while bits != 0 {
                let n = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if n < FIELD_COUNT {
                    f(ALL[n]);
                }
            }
        }
    }
}

/// The largest index (bits 9:1 of the encoding) of the fields in `set`, as
/// IA32_VMX_VMCS_ENUM reports it in its bits 9:1. SDM "VMCS Enumeration".
pub fn highest_ordinal(set: &FieldSet) -> u64 {
    let mut highest = 0;
    for field in ALL {
        if set.contains(field) {
            highest = highest.max(u64::from(field.encoding >> 1) & 0x1ff);
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_encoding() {
        for field in ALL {
            assert_eq!(
                Field::from_encoding(u64::from(field.encoding())),
                Some((field, false))
            );
            let high = Field::from_encoding(u64::from(field.encoding()) | 1);
            match field.width() {
                Width::W64 => assert_eq!(high, Some((field, true))),
                _ => assert_eq!(high, None),
            }
        }
    }

    #[test]
    fn nothing_else_is_found() {
        let known = (0..=0xffff_u64)
            .filter(|e| Field::from_encoding(*e).is_some())
            .count();
        let wide = ALL.iter().filter(|f| f.width() == Width::W64).count();
        assert_eq!(known, FIELD_COUNT + wide);
        assert_eq!(Field::from_encoding(0x1_0000_0000 | 0x681e), None);
        assert_eq!(Field::from_encoding(0x1_681e), None);
    }

    #[test]
    fn rows_stand_in_the_order_of_their_encodings() {
        assert!(ALL.windows(2).all(|w| w[0].encoding() < w[1].encoding()));
    }

    #[test]
    fn draining_visits_each_field_once() {
        let mut set = FieldSet::of(&[GUEST_RIP, HOST_RIP, EPT_POINTER]);
        let mut seen = FieldSet::EMPTY;
        set.drain_within(&FieldSet::of(&[GUEST_RIP, EPT_POINTER, GUEST_CR0]), |f| {
            seen.insert(f)
        });
        assert_eq!(seen, FieldSet::of(&[GUEST_RIP, EPT_POINTER]));
        assert_eq!(set, FieldSet::of(&[HOST_RIP]));
    }
}
