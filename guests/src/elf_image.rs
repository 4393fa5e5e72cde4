//! Loading an ELF kernel the way GRUB does for multiboot.
//!
//! Segments go to their *physical* addresses; the entry point may be a virtual
//! address inside one of them, and is then entered at the physical one.

use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::ParseAt;
use elf::section::SectionHeader;
use elf::segment::ProgramHeader;
use heapless::Vec;

use crate::error::Error;
use crate::phys::{PhysMemory, Region};
use crate::source::{InMemory, Source};
use crate::space::{LAST_32BIT, MAX_SEGMENTS, Space};

const EI_IDENT_BYTES: usize = 16;
const EHDR32_BYTES: usize = 52;
const EHDR64_BYTES: usize = 64;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
/// `e_phnum` of a file whose true count stands elsewhere.
const PN_XNUM: u16 = 0xffff;
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;

/// Something of the file that goes to a place in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadSegment {
    /// Where it lies in the file.
    pub(crate) file_offset: u64,
    /// How much of it the file holds, in bytes.
    pub(crate) file_bytes: u64,
    /// Where it is linked to lie in memory; what the file does not hold is
    /// zero.
    pub(crate) memory: Region,
}

/// Everything of a kernel file that goes into memory, and where it is entered.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// At least one; none is empty; all end below 4 GiB.
    pub(crate) segments: Vec<LoadSegment, MAX_SEGMENTS>,
    /// Physical entry point, as linked.
    pub(crate) entry: u32,
    /// The section headers of an ELF file that has some.
    pub(crate) sections: Option<SectionTable>,
}

/// Where an ELF file has its section headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SectionTable {
    file_offset: u64,
    class: Class,
    /// Number of headers.
    pub(crate) count: u16,
    /// Bytes of one header.
    pub(crate) entry_bytes: u16,
    /// Index of the one that holds the names.
    pub(crate) names_index: u16,
}

impl Plan {
    /// The lowest and the whole region up to the highest byte, as linked.
    pub(crate) fn hull(&self) -> Region {
        let first = self
            .segments
            .iter()
            .map(|s| s.memory.start)
            .min()
            .unwrap_or(0);
        let last = self
            .segments
            .iter()
            .filter_map(|s| s.memory.last())
            .max()
            .unwrap_or(first);
        Region::new(first, (last - first).saturating_add(1))
    }

    /// Takes the place of every segment, moved up by `shift` (wrapping).
    pub(crate) fn take_places(&self, space: &mut Space<'_>, shift: u64) -> Result<(), Error> {
        for s in &self.segments {
            let place = Region::new(s.memory.start.wrapping_add(shift), s.memory.len);
            space.take_fixed(place, "a segment of the kernel")?;
        }
        Ok(())
    }

    /// Copies every segment out of the kernel file at `file`, moved by
    /// `shift` (wrapping). File and segments must not overlap.
    pub(crate) fn load<M: PhysMemory>(
        &self,
        mem: &mut M,
        file: Region,
        shift: u64,
    ) -> Result<(), Error> {
        for s in &self.segments {
            let to = s.memory.start.wrapping_add(shift);
            mem.copy_within(to, file.start.saturating_add(s.file_offset), s.file_bytes)?;
            mem.zero(
                to.saturating_add(s.file_bytes),
                s.memory.len.saturating_sub(s.file_bytes),
            )?;
        }
        Ok(())
    }
}

/// Reads an ELF file and plans how it is loaded.
pub(crate) fn plan<S: Source>(file: &S) -> Result<Plan, Error> {
    let header = read_header(file)?;
    let mut segments = Vec::new();
    let mut entry = None;
    for index in 0..header.e_phnum {
        let p: ProgramHeader = entry_at(
            file,
            header.class,
            header.e_phoff,
            header.e_phentsize,
            index,
            "the program headers",
        )?;
        if p.p_type != PT_LOAD || p.p_memsz == 0 {
            continue;
        }
        if p.p_filesz > p.p_memsz {
            return Err(Error::Elf("a segment is longer in the file than in memory"));
        }
        file.check(p.p_offset, p.p_filesz, "a segment")?;
        let memory = Region::new(p.p_paddr, p.p_memsz);
        if memory.last().is_none_or(|last| last > LAST_32BIT) {
            return Err(Error::Elf("a segment reaches beyond 4 GiB"));
        }
        if let Some(offset) = header.e_entry.checked_sub(p.p_vaddr)
            && offset < p.p_memsz
            && entry.is_none()
        {
            // Fits: the segment ends below 4 GiB.
            entry = u32::try_from(p.p_paddr.saturating_add(offset)).ok();
        }
        segments
            .push(LoadSegment {
                file_offset: p.p_offset,
                file_bytes: p.p_filesz,
                memory,
            })
            .map_err(|_| Error::Elf("it has more than 32 segments to load"))?;
    }
    if segments.is_empty() {
        return Err(Error::Elf("it has no segment to load"));
    }
    let entry = entry.ok_or(Error::Elf("its entry point lies in no segment"))?;
    Ok(Plan {
        segments,
        entry,
        sections: sections(file, &header)?,
    })
}

fn read_header<S: Source>(file: &S) -> Result<FileHeader<LittleEndian>, Error> {
    const WHAT: &str = "the ELF header";
    let ident: [u8; EI_IDENT_BYTES] = file.array(0, WHAT)?;
    let ident = parse_ident::<LittleEndian>(&ident)
        .map_err(|_| Error::Elf("it is no little-endian ELF file"))?;
    let mut tail = [0; EHDR64_BYTES - EI_IDENT_BYTES];
    let tail_bytes = match ident.1 {
        Class::ELF32 => EHDR32_BYTES,
        Class::ELF64 => EHDR64_BYTES,
    } - EI_IDENT_BYTES;
    let (tail, _) = tail.split_at_mut(tail_bytes);
    file.read(EI_IDENT_BYTES as u64, tail, WHAT)?;
    let header =
        FileHeader::parse_tail(ident, tail).map_err(|_| Error::Elf("its header cannot be read"))?;
    let machine = match header.class {
        Class::ELF32 => EM_386,
        Class::ELF64 => EM_X86_64,
    };
    if header.e_machine != machine {
        return Err(Error::Elf("it is made for another kind of CPU"));
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(Error::Elf("it is no program (an object file, say)"));
    }
    if header.e_phnum == PN_XNUM {
        return Err(Error::Elf("it has 65535 or more program headers"));
    }
    Ok(header)
}

fn sections<S: Source>(
    file: &S,
    header: &FileHeader<LittleEndian>,
) -> Result<Option<SectionTable>, Error> {
    if header.e_shnum == 0 || header.e_shoff == 0 {
        return Ok(None);
    }
    if usize::from(header.e_shentsize) != SectionHeader::size_for(header.class) {
        return Err(Error::Elf("its section headers have a length of their own"));
    }
    file.check(
        header.e_shoff,
        u64::from(header.e_shnum) * u64::from(header.e_shentsize),
        "the section headers",
    )?;
    Ok(Some(SectionTable {
        file_offset: header.e_shoff,
        class: header.class,
        count: header.e_shnum,
        entry_bytes: header.e_shentsize,
        names_index: header.e_shstrndx,
    }))
}

/// Entry `index` of a table in the file.
fn entry_at<S: Source, P: ParseAt>(
    file: &S,
    class: Class,
    table: u64,
    entry_bytes: u16,
    index: u16,
    what: &'static str,
) -> Result<P, Error> {
    let wanted = P::size_for(class);
    if usize::from(entry_bytes) < wanted {
        return Err(Error::Elf("a table of it has entries that are too short"));
    }
    let mut buffer = [0; 64];
    let (bytes, _) = buffer
        .split_at_mut_checked(wanted)
        .ok_or(Error::Elf("a table of it has entries that are too long"))?;
    let offset = table.saturating_add(u64::from(index) * u64::from(entry_bytes));
    file.read(offset, bytes, what)?;
    P::parse_at(LittleEndian, class, &mut 0, bytes)
        .map_err(|_| Error::Elf("a table of it cannot be read"))
}

impl SectionTable {
    /// Length of the whole table in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.entry_bytes)
    }

    /// Copies the table from the kernel file at `file` to `to`. Sections that
    /// are loaded get the address they were moved to by `shift` (wrapping);
    /// those that are not (symbols, names) get the address at which they lie
    /// in the kernel file, which the caller has to leave in memory.
    pub(crate) fn copy<M: PhysMemory>(
        &self,
        mem: &mut M,
        file: Region,
        to: u64,
        shift: u64,
    ) -> Result<(), Error> {
        let from = file.start.saturating_add(self.file_offset);
        mem.copy_within(to, from, self.bytes())?;
        for index in 0..self.count {
            let source = InMemory::new(mem, file);
            let section: SectionHeader = entry_at(
                &source,
                self.class,
                self.file_offset,
                self.entry_bytes,
                index,
                "the section headers",
            )?;
            let address = if section.sh_addr != 0 {
                section.sh_addr.wrapping_add(shift)
            } else if section.sh_size == 0
                || matches!(section.sh_type, SHT_NULL | SHT_NOBITS)
                || source
                    .check(section.sh_offset, section.sh_size, "a section")
                    .is_err()
            {
                continue;
            } else {
                file.start.saturating_add(section.sh_offset)
            };
            let entry = to.saturating_add(u64::from(index) * u64::from(self.entry_bytes));
            // `sh_addr` follows name, type and flags.
            match self.class {
                Class::ELF32 => {
                    mem.write(entry.saturating_add(12), &(address as u32).to_le_bytes())?;
                }
                Class::ELF64 => mem.write(entry.saturating_add(16), &address.to_le_bytes())?,
            }
        }
        Ok(())
    }
}
