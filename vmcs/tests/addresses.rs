//! The fields that take addresses are known as such.

use umbra_vmcs::field::{self, Area, FieldSet, flow};

#[test]
fn a_field_that_is_called_an_address_is_one() {
    let mut named = FieldSet::EMPTY;
    for field in field::ALL {
        let name = field.name();
        let is_page = name.ends_with("_ADDRESS") || name.ends_with("_POINTER");
        let is_bitmap = name.starts_with("IO_BITMAP") || name == "MSR_BITMAP";
        let leads = matches!(field.area(), Area::Control) || name == "VMCS_LINK_POINTER";
        if leads && (is_page || is_bitmap) {
            named.insert(field);
        }
    }
    for field in field::ALL {
        let is_known = flow::ADDRESSES.contains(field);
        assert_eq!(is_known, named.contains(field), "{}", field.name());
    }
}

#[test]
fn no_table_that_the_cpu_walks_is_a_page_with_data() {
    for field in [
        field::EPT_POINTER,
        field::EPTP_LIST_ADDRESS,
        field::HLAT_POINTER,
        field::VM_EXIT_MSR_LOAD_ADDRESS,
        field::VM_ENTRY_MSR_LOAD_ADDRESS,
    ] {
        assert!(!flow::DATA_ADDRESSES.contains(field), "{}", field.name());
        assert!(flow::ADDRESSES.contains(field), "{}", field.name());
    }
}
