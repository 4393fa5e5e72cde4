//! ACPI's sleep state S3, which L1 is not shown: the machine would wake in its
//! firmware and then in L1, with Umbra gone and VMX off.
//!
//! An operating system goes into a sleep state only where the DSDT has its object
//! (ACPI Specification, "\\_Sx (System States)"). So that of S3 gets another name.

use crate::acpi::{CHECKSUM, Error, HEADER_BYTES, check, number};
use umbra_guests::PhysMemory;

/// The object's name as AML has it, and what it becomes.
const NAME: [u8; 4] = *b"_S3_";
const HIDDEN_FIRST: u8 = b'X';
/// What comes before a name that is defined: NameOp, or the root's prefix.
const NAME_OP: u8 = 0x08;
const ROOT: u8 = b'\\';

/// Renames the object of S3 in the DSDT at `dsdt`, and keeps the table's sum. Whether
/// there was one.
///
/// # Errors
/// [`Error`]: the table is damaged or out of reach. It is as it was then.
pub fn hide_s3(memory: &mut impl PhysMemory, dsdt: u64) -> Result<bool, Error> {
    let bytes = check(memory, dsdt)?;
    let mut was_there = false;
    let mut last = [0; 5];
    for at in HEADER_BYTES..bytes {
        last.rotate_left(1);
        last[4] = number::<1>(memory, dsdt + at)? as u8;
        if matches!(last[0], NAME_OP | ROOT) && last[1..] == NAME {
            let sum = number::<1>(memory, dsdt + CHECKSUM)? as u8;
            let sum = sum.wrapping_add(NAME[0]).wrapping_sub(HIDDEN_FIRST);
            memory.write(dsdt + at - 3, &[HIDDEN_FIRST])?;
            memory.write(dsdt + CHECKSUM, &[sum])?;
            was_there = true;
        }
    }
    Ok(was_there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;
    use umbra_guests::Unreachable;

    struct Table(Vec<u8>);

    impl PhysMemory for Table {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable> {
            let start = address as usize;
            let from = self.0.get(start..start + bytes.len());
            bytes.copy_from_slice(from.ok_or(Unreachable { address })?);
            Ok(())
        }
        fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
            let start = address as usize;
            self.0[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn zero(&mut self, address: u64, _: u64) -> Result<(), Unreachable> {
            Err(Unreachable { address })
        }
        fn copy_within(&mut self, address: u64, _: u64, _: u64) -> Result<(), Unreachable> {
            Err(Unreachable { address })
        }
    }

    fn dsdt(body: &[u8]) -> Table {
        let mut table = vec![0; 36];
        table.extend_from_slice(body);
        table[4..8].copy_from_slice(&(36 + body.len() as u32).to_le_bytes());
        let sum = table.iter().fold(0u8, |s, &b| s.wrapping_add(b));
        table[9] = 0u8.wrapping_sub(sum);
        Table(table)
    }

    #[test]
    fn the_object_is_renamed_and_the_sum_kept() {
        for body in [&b"\x08_S3_\x12\x04"[..], &b"xx\x08\\_S3_\x12"[..]] {
            let mut table = dsdt(body);
            assert_eq!(hide_s3(&mut table, 0), Ok(true));
            assert!(table.0.windows(4).any(|w| w == b"XS3_"));
            assert!(check(&table, 0).is_ok());
            assert_eq!(hide_s3(&mut table, 0), Ok(false));
        }
    }

    #[test]
    fn other_objects_and_mere_mentions_stay() {
        for body in [
            &b"\x08_S5_\x12"[..],
            &b"a_S3_"[..],
            &b"\x08_S3"[..],
            &b""[..],
        ] {
            let mut table = dsdt(body);
            let before = table.0.clone();
            assert_eq!(hide_s3(&mut table, 0), Ok(false));
            assert_eq!(table.0, before);
        }
    }

    #[test]
    fn a_damaged_table_is_left_alone() {
        let mut table = dsdt(b"\x08_S3_");
        table.0[9] ^= 1;
        let before = table.0.clone();
        assert_eq!(hide_s3(&mut table, 0), Err(Error::Checksum(0)));
        assert_eq!(table.0, before);
    }
}
