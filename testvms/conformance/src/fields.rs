//! Which encodings VMREAD and VMWRITE know, and which bits of each field stay.
//!
//! SDM "VMREAD", "VMWRITE", "Field Encoding in VMCS".

use rt::vmx::insn::{vmread_raw, vmwrite_raw};
use rt::vmx::vm::Mode;
use umbra_vmcs::field::ALL;

use crate::lab::Lab;
use crate::show;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    if lab.begin("encodings", Mode::Long, true) {
        encodings(lab);
        lab.end();
    }
    if lab.begin("field values", Mode::Long, true) {
        values(lab);
        lab.end();
    }
}

/// One line for each width, area and access type: 64 indices as bits, read and written.
fn encodings(lab: &mut Lab) {
    for class in 0..32u64 {
        let start = (class >> 3) << 13 | (class >> 1 & 3) << 10 | class & 1;
        let (mut read, mut written) = (0u64, 0u64);
        for index in 0..64 {
            let encoding = start | index << 1;
            if let Ok(value) = vmread_raw(encoding) {
                read |= 1 << index;
                written |= u64::from(vmwrite_raw(encoding, value).is_ok()) << index;
            }
        }
        lab.record(
            format_args!("{start:04x}"),
            format_args!("{read:x} {written:x}"),
        );
    }
    for encoding in (0..64)
        .map(|bit| 0x6c16 ^ 1 << bit)
        .chain([0x7fff, 0xffff, u64::MAX])
    {
        let read = show::Result(vmread_raw(encoding).map(drop));
        let value = vmread_raw(encoding).unwrap_or(0);
        let written = show::Result(vmwrite_raw(encoding, value));
        lab.record(
            format_args!("{encoding:x}"),
            format_args!("{read} {written}"),
        );
    }
}

/// What comes back of all ones, and of an alternating pattern.
fn values(lab: &mut Lab) {
    for field in ALL {
        let encoding = u64::from(field.encoding());
        let Ok(before) = vmread_raw(encoding) else {
            continue;
        };
        let results = [u64::MAX, 0x1234_5678_9abc_def0].map(|value| {
            let result = vmwrite_raw(encoding, value);
            (result, vmread_raw(encoding).unwrap_or(0))
        });
        let _ = vmwrite_raw(encoding, before);
        let [(result, ones), (_, pattern)] = results;
        let result = show::Result(result);
        lab.record(
            format_args!("{encoding:04x}"),
            format_args!("{result} {ones:x} {pattern:x}"),
        );
    }
}
