//! Umbra's image as an EFI application: the same bytes behind another head.
//!
//! No linker for EFI is needed, since the code that the firmware enters runs
//! wherever it lies, and the rest where it is linked, by tables of its own.

use anyhow::{Context, Result, bail};
use object::pe;
use object::read::elf::ElfFile64;
use object::write::pe::{NtHeaders, Writer};
use object::{Object, ObjectSegment, ObjectSymbol};

/// Where the firmware enters.
const ENTRY: &str = "umbra_efi_entry";
const SECTION_ALIGNMENT: u32 = 4096;
const FILE_ALIGNMENT: u32 = 512;
/// `MZ`, headers and padding: the image begins with the second page.
const IMAGE_AT: u32 = SECTION_ALIGNMENT;

/// The EFI application of the ELF file `elf`.
///
/// # Errors
/// It is no image of Umbra.
pub fn from_image(elf: &[u8]) -> Result<Vec<u8>> {
    let file: ElfFile64<'_> = ElfFile64::parse(elf).context("Umbra's image is no ELF file")?;
    let start = file.segments().map(|s| s.address()).min().unwrap_or(0);
    let end = file
        .segments()
        .map(|s| s.address() + s.size())
        .max()
        .unwrap_or(0);
    let mut flat = Vec::new();
    for segment in file.segments() {
        let at = usize::try_from(segment.address() - start)?;
        let data = segment.data()?;
        if flat.len() < at + data.len() {
            flat.resize(at + data.len(), 0);
        }
        flat[at..at + data.len()].copy_from_slice(data);
    }
    let entry = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(ENTRY))
        .with_context(|| format!("Umbra's image has no {ENTRY}"))?
        .address();
    let image_bytes = u32::try_from(end - start)?;
    if image_bytes > 2 << 20 {
        bail!("Umbra's image is larger than the table that maps it");
    }

    let mut out = Vec::new();
    let mut writer = Writer::new(true, SECTION_ALIGNMENT, FILE_ALIGNMENT, &mut out);
    writer.reserve_dos_header();
    writer.reserve_nt_headers(pe::IMAGE_NUMBEROF_DIRECTORY_ENTRIES);
    writer.reserve_section_headers(2);
    writer.reserve_virtual_until(IMAGE_AT);
    let text = writer.reserve_section(
        *b".umbra\0\0",
        pe::IMAGE_SCN_CNT_CODE
            | pe::IMAGE_SCN_MEM_READ
            | pe::IMAGE_SCN_MEM_WRITE
            | pe::IMAGE_SCN_MEM_EXECUTE,
        image_bytes,
        u32::try_from(flat.len())?,
    );
    // Firmware takes an image without relocations for one that has its place;
    // this one relocates nothing.
    writer.add_reloc(text.virtual_address, pe::IMAGE_REL_BASED_ABSOLUTE);
    writer.reserve_reloc_section();
    writer.write_empty_dos_header()?;
    writer.write_nt_headers(NtHeaders {
        machine: pe::IMAGE_FILE_MACHINE_AMD64,
        time_date_stamp: 0,
        characteristics: pe::IMAGE_FILE_EXECUTABLE_IMAGE
            | pe::IMAGE_FILE_LARGE_ADDRESS_AWARE
            | pe::IMAGE_FILE_LINE_NUMS_STRIPPED,
        major_linker_version: 0,
        minor_linker_version: 0,
        address_of_entry_point: text.virtual_address + u32::try_from(entry - start)?,
        image_base: 0,
        major_operating_system_version: 0,
        minor_operating_system_version: 0,
        major_image_version: 0,
        minor_image_version: 0,
        major_subsystem_version: 0,
        minor_subsystem_version: 0,
        subsystem: pe::IMAGE_SUBSYSTEM_EFI_APPLICATION,
        dll_characteristics: 0,
        size_of_stack_reserve: 0,
        size_of_stack_commit: 0,
        size_of_heap_reserve: 0,
        size_of_heap_commit: 0,
    });
    writer.write_section_headers();
    writer.write_section(text.file_offset, &flat);
    writer.write_reloc_section();
    Ok(out)
}
