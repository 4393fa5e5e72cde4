//! How a field's value goes from vmcs12 to vmcs02 and back, one column each.

use super::{self as field, ALL, Area, FIELD_COUNT, Field, FieldSet};

/// How vmcs02 gets a field of vmcs12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into02 {
    /// As it is.
    Copied,
    /// As an address in L1's memory, exchanged for the page that L1 reaches there.
    Address,
    /// As something that L0 makes of it.
    Composed,
    /// Merged with L0's bits: a word of controls. They are made together.
    ControlWord,
    /// Not: vmcs02 has a value of L0's own.
    Own,
    /// Not: vmcs02's field is not written, and has no effect.
    Absent,
}

/// How vmcs12 gets a field back after an exit of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// It stays in vmcs02, and is read from there when L1 asks for it.
    WhenAsked,
    /// L0 writes what the CPU would have stored.
    L0Records,
    /// Not: no exit changes it.
    Never,
}

/// Which control of vmcs12 has to be 1 for the field to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum On {
    /// None.
    Any,
    SaveDebugControls,
    SavePat,
    SaveEfer,
    SavePerfGlobalCtrl,
    /// Together with "activate VMX-preemption timer".
    SavePreemptionTimer,
    Ept,
    VirtualInterruptDelivery,
}

/// What L1's VMREAD and VMWRITE may do without an exit: whether vmcs02 has the field
/// as vmcs12 would, and whether a look at the next entry is enough for what L1 wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// Nothing: L0 deals with each.
    No,
    /// Read it.
    Read,
    /// Read it and write it.
    ReadWrite,
}

/// A field's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// How vmcs02 gets it.
    pub into02: Into02,
    /// How vmcs12 gets it back.
    pub back: Back,
    /// What the way back hangs on.
    pub on: On,
    /// What L1 does without an exit.
    pub shadow: Shadow,
}

/// Makes a set of the rows whose flow satisfies a condition.
macro_rules! set {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) = |$flow:ident| $holds:expr;)*) => {
        $(
            $(#[$doc])*
            pub const fn $name($($argument: $type),*) -> FieldSet {
                let mut set = FieldSet::EMPTY;
                let mut n = 0;
                while n < FIELD_COUNT {
                    if let Some($flow) = ALL[n].flow()
                        && $holds
                    {
                        set = set.with(ALL[n]);
                    }
                    n += 1;
                }
                set
            }
        )*
    };
}

set! {
    /// The fields that have a flow at all: those that L1 can be offered.
    known() = |_flow| true;
    /// The fields that vmcs02 gets in this way.
    into02(how: Into02) = |flow| flow.into02 as u8 == how as u8;
    /// The fields that vmcs12 gets back in this way, where `on` holds.
    back(how: Back, on: On) = |flow| flow.back as u8 == how as u8 && flow.on as u8 == on as u8;
    /// All the fields that vmcs12 gets back from vmcs02.
    read_back() = |flow| matches!(flow.back, Back::WhenAsked);
    /// The fields with which L1 may do this much, and no more.
    shadow(what: Shadow) = |flow| flow.shadow as u8 == what as u8;
}

/// Fields that take the machine address of a page of L1's, or of one that L0 keeps in its
/// stead: the CPU reads and writes data there.
pub const DATA_ADDRESSES: FieldSet =
    into02(Into02::Address).union(FieldSet::of(&[field::MSR_BITMAP, field::VMCS_LINK_POINTER]));

/// Fields by which the CPU is led to memory of the machine, by address: they are not to be
/// written with just any number.
pub const ADDRESSES: FieldSet = DATA_ADDRESSES.union(FieldSet::of(&[
    field::VM_EXIT_MSR_STORE_ADDRESS,
    field::VM_EXIT_MSR_LOAD_ADDRESS,
    field::VM_ENTRY_MSR_LOAD_ADDRESS,
    field::EXECUTIVE_VMCS_POINTER,
    field::PML_ADDRESS,
    field::EPT_POINTER,
    field::EPTP_LIST_ADDRESS,
    field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
    field::SUB_PAGE_PERMISSION_TABLE_POINTER,
    field::LOW_PASID_DIRECTORY_ADDRESS,
    field::HIGH_PASID_DIRECTORY_ADDRESS,
    field::SHARED_EPT_POINTER,
    field::HLAT_POINTER,
    field::PID_POINTER_TABLE_ADDRESS,
]));

/// The fields of an area.
pub const fn area(area: Area) -> FieldSet {
    let mut set = FieldSet::EMPTY;
    let mut n = 0;
    while n < FIELD_COUNT {
        if ALL[n].area() as u8 == area as u8 {
            set = set.with(ALL[n]);
        }
        n += 1;
    }
    set
}

/// The fields of a set, in the order of the table. `N` is the set's
/// [`len`](FieldSet::len).
pub const fn list<const N: usize>(set: FieldSet) -> [Field; N] {
    let mut fields = [ALL[0]; N];
    let (mut n, mut filled) = (0, 0);
    while n < FIELD_COUNT {
        if set.contains(ALL[n]) {
            fields[filled] = ALL[n];
            filled += 1;
        }
        n += 1;
    }
    assert!(filled == N, "the set has another number of fields");
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that the CPU saves for L1 can be lost, and nothing that L1 writes.
    #[test]
    fn flows_fit_the_areas() {
        for field in ALL {
            let Some(flow) = field.flow() else { continue };
            let holds = |holds: bool, rule: &str| assert!(holds, "{field:?}: {rule}");
            match field.area() {
                Area::ExitInformation => {
                    holds(flow.into02 == Into02::Absent, "exit information is ABSENT");
                    holds(flow.back != Back::Never, "exit information comes back");
                    holds(
                        flow.shadow != Shadow::ReadWrite,
                        "exit information is not RW",
                    );
                }
                Area::Host => {
                    let is_kept_out = matches!(flow.into02, Into02::Own | Into02::Absent);
                    holds(is_kept_out, "vmcs02's host state is L0's: OWN or ABSENT");
                    holds(
                        flow.back == Back::Never,
                        "no exit changes host state: NEVER",
                    );
                }
                Area::Guest | Area::Control => {}
            }
            let is_exit_information = field.area() == Area::ExitInformation;
            if flow.back == Back::WhenAsked {
                let is_in_vmcs02 = matches!(flow.into02, Into02::Copied | Into02::Composed);
                holds(
                    is_in_vmcs02 || is_exit_information,
                    "WHEN_ASKED reads vmcs02, which does not have it",
                );
            }
            if flow.shadow != Shadow::No {
                holds(
                    flow.into02 == Into02::Copied || is_exit_information,
                    "vmcs02 does not have it as vmcs12 would: NO",
                );
            }
        }
    }
}
