//! What Umbra asks of the firmware while boot services are alive. UEFI
//! Specification, "Services - Boot Services", "Protocols - Media Access".
//!
//! Everything handed to the firmware lies on its own stack or in its own pool:
//! it may pass an address on to a device, and the image's own linear addresses
//! are no physical ones.

use crate::mem::PAGE_BYTES;
use core::ffi::c_void;
use core::fmt;
use core::ptr::{null, null_mut};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::file_system::{
    FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol,
};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, BootServices, MemoryDescriptor, MemoryType};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Boolean, Guid, Handle, Status};

/// The longest path, in characters.
const MAX_PATH: usize = 256;
/// The longest configuration file, in bytes.
const MAX_FILE_BYTES: usize = 4096;
/// Where a device path or a list of its nodes is given up as endless.
const MAX_DEVICE_PATH_BYTES: usize = 4096;

/// A call that the firmware refused, and what it was for.
#[derive(Clone, Copy, Debug)]
pub struct Refused(&'static str, Status);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(what, status) = self;
        write!(f, "{what} (status {:#x} of the firmware)", status.0)
    }
}

/// A path of UCS-2 characters, as the firmware takes it.
type Path = heapless::Vec<u16, MAX_PATH>;

/// The firmware.
#[derive(Clone, Copy, Debug)]
pub struct Firmware {
    image: Handle,
    services: &'static BootServices,
}

/// The pages of a memory map that firmware or its loader can have put RAM in.
fn is_ram(kind: MemoryType) -> bool {
    !matches!(
        kind,
        MemoryType::RESERVED | MemoryType::MMIO | MemoryType::MMIO_PORT_SPACE
    )
}

impl Firmware {
    /// The firmware that started `image`.
    ///
    /// # Safety
    /// `table` is the system table that the firmware handed to the image, boot
    /// services are alive, and the caller runs on the firmware's stack with its
    /// memory mapped one to one.
    pub unsafe fn new(image: Handle, table: *const SystemTable) -> Self {
        // SAFETY: the caller's promise.
        let table = unsafe { &*table };
        // SAFETY: the table's own pointer, valid while boot services are alive.
        let services = unsafe { &*table.boot_services };
        Self { image, services }
    }

    /// StartImage, for L1 to call.
    pub fn start_image(self) -> u64 {
        self.services.start_image as usize as u64
    }

    fn protocol<T>(
        self,
        handle: Handle,
        guid: &Guid,
        what: &'static str,
    ) -> Result<*mut T, Refused> {
        let mut found: *mut c_void = null_mut();
        // SAFETY: a call of the firmware with a place for the answer.
        let status = unsafe { (self.services.handle_protocol)(handle, guid, &raw mut found) };
        done(status, what)?;
        Ok(found.cast())
    }

    fn loaded_image(self, handle: Handle) -> Result<*mut LoadedImageProtocol, Refused> {
        self.protocol(
            handle,
            &LoadedImageProtocol::GUID,
            "the firmware does not say where the image came from",
        )
    }

    /// The image's own [`LoadedImageProtocol`], copied.
    fn own(self) -> Result<LoadedImageProtocol, Refused> {
        let own = self.loaded_image(self.image)?;
        // SAFETY: the firmware's own, of that type.
        Ok(unsafe { own.read() })
    }

    /// Bytes from the firmware's pool; never given back.
    fn pool(self, bytes: usize) -> Result<*mut u8, Refused> {
        let mut at = null_mut();
        // SAFETY: a call of the firmware with a place for the answer.
        let status =
            unsafe { (self.services.allocate_pool)(MemoryType::LOADER_DATA, bytes, &raw mut at) };
        done(status, "the firmware has no memory left")?;
        Ok(at)
    }

    /// The file `name` in the folder that the image came from.
    ///
    /// # Errors
    /// What could not be done, and the firmware's status.
    pub fn read_beside(self, name: &str) -> Result<&'static [u8], Refused> {
        const WHAT: &str = "umbra.conf beside umbra.efi cannot be read";
        let own = self.own()?;
        let volume: *mut SimpleFileSystemProtocol = self.protocol(
            own.device_handle,
            &SimpleFileSystemProtocol::GUID,
            "umbra.efi came from no file system",
        )?;
        let mut path = folder_of(own.file_path);
        let longer = path.extend_from_slice(&ucs2(name));
        if longer.is_err() || path.push(0).is_err() {
            return Err(Refused(WHAT, Status::BUFFER_TOO_SMALL));
        }
        let mut root: *mut FileProtocolV1 = null_mut();
        // SAFETY: the firmware's own protocol.
        let open_volume = unsafe { (*volume).open_volume };
        // SAFETY: a call of the firmware with a place for the answer.
        done(unsafe { open_volume(volume, &raw mut root) }, WHAT)?;
        // SAFETY: the file that the firmware gave.
        let open = unsafe { (*root).open };
        let mut file: *mut FileProtocolV1 = null_mut();
        // SAFETY: as above; the path ends with 0.
        let status = unsafe {
            open(
                root,
                &raw mut file,
                path.as_ptr(),
                FileMode::READ,
                FileAttribute::empty(),
            )
        };
        done(status, WHAT)?;
        let buffer = self.pool(MAX_FILE_BYTES)?;
        let mut bytes = MAX_FILE_BYTES;
        // SAFETY: the file that the firmware gave.
        let read = unsafe { (*file).read };
        // SAFETY: a buffer of that many bytes.
        done(unsafe { read(file, &raw mut bytes, buffer.cast()) }, WHAT)?;
        // SAFETY: the pool's memory stays, and that many bytes are filled.
        Ok(unsafe { core::slice::from_raw_parts(buffer, bytes.min(MAX_FILE_BYTES)) })
    }

    /// Loads the EFI application at `path` of the file system that the image came
    /// from, with `arguments` as its load options; gives its handle.
    ///
    /// # Errors
    /// What could not be done, and the firmware's status.
    pub fn load(self, path: &str, arguments: &str) -> Result<Handle, Refused> {
        const WHAT: &str = "what `next` in umbra.conf names cannot be loaded";
        let own = self.own()?;
        let device: *mut DevicePathProtocol = self.protocol(
            own.device_handle,
            &DevicePathProtocol::GUID,
            "the device that umbra.efi came from has no path",
        )?;
        let device_bytes = device_path_bytes(device);
        let name = ucs2(path);
        let node_bytes = 4 + 2 * (name.len() + 1);
        let whole = self.pool(device_bytes + node_bytes + 4)?;
        // SAFETY: the device path is that long, and so is the buffer.
        unsafe { core::ptr::copy_nonoverlapping(device.cast::<u8>(), whole, device_bytes) };
        let mut rest: heapless::Vec<u8, { 2 * MAX_PATH + 16 }> = heapless::Vec::new();
        // A node of the type "media", "file path"; then the end.
        let [low, high] = (node_bytes as u16).to_le_bytes();
        let _ = rest.extend_from_slice(&[4, 4, low, high]);
        for unit in name.iter().chain(&[0]) {
            let _ = rest.extend_from_slice(&unit.to_le_bytes());
        }
        let _ = rest.extend_from_slice(&[0x7f, 0xff, 4, 0]);
        // SAFETY: `rest` is as long as what was asked for beyond the device path.
        unsafe {
            core::ptr::copy_nonoverlapping(
                rest.as_ptr(),
                whole.wrapping_add(device_bytes),
                rest.len(),
            );
        }
        let mut next: Handle = null_mut();
        // SAFETY: a device path that ends, and a place for the answer.
        let status = unsafe {
            (self.services.load_image)(
                Boolean(0),
                self.image,
                whole.cast(),
                null(),
                0,
                &raw mut next,
            )
        };
        done(status, WHAT)?;
        if !arguments.is_empty() {
            self.give_arguments(next, arguments)?;
        }
        Ok(next)
    }

    fn give_arguments(self, next: Handle, arguments: &str) -> Result<(), Refused> {
        let units = ucs2(arguments);
        let bytes = 2 * (units.len() + 1);
        let buffer = self.pool(bytes)?;
        for (at, unit) in units.iter().chain(&[0]).enumerate() {
            // SAFETY: within the buffer; the pool's memory is aligned to 8 bytes.
            unsafe { buffer.cast::<u16>().wrapping_add(at).write(*unit) };
        }
        let loaded = self.loaded_image(next)?;
        // SAFETY: the firmware's own, for the one that loaded the image to fill.
        let loaded = unsafe { &mut *loaded };
        loaded.load_options = buffer.cast();
        loaded.load_options_size = bytes as u32;
        Ok(())
    }

    /// Takes `bytes` bytes at a multiple of `align` below `below` out of the
    /// firmware's memory for good: whole pages of the type given.
    ///
    /// # Errors
    /// There is no such memory.
    pub fn take(
        self,
        kind: MemoryType,
        bytes: u64,
        align: u64,
        below: u64,
    ) -> Result<u64, Refused> {
        let pages = |bytes: u64| (bytes / PAGE_BYTES) as usize;
        let with_room = bytes + align - PAGE_BYTES;
        let mut at = below - 1;
        // SAFETY: a call of the firmware with a place for the answer.
        let status = unsafe {
            (self.services.allocate_pages)(
                AllocateType::MAX_ADDRESS,
                kind,
                pages(with_room),
                &raw mut at,
            )
        };
        done(status, "the firmware has not enough memory in one piece")?;
        let start = at.next_multiple_of(align);
        for (first, after) in [(at, start), (start + bytes, at + with_room)] {
            if first < after {
                // SAFETY: pages that were given just now and that nobody uses.
                let status = unsafe { (self.services.free_pages)(first, pages(after - first)) };
                done(status, "the firmware does not take memory back")?;
            }
        }
        Ok(start)
    }

    /// The end of the highest RAM, in bytes.
    ///
    /// # Errors
    /// The firmware does not give its memory map.
    pub fn ram_end(self) -> Result<u64, Refused> {
        const WHAT: &str = "the firmware does not give its memory map";
        // Room for maps of some 600 descriptors: real ones have up to 300.
        let mut bytes = 32 * 1024;
        let buffer = self.pool(bytes)?;
        let (mut key, mut descriptor_bytes, mut version) = (0, 0, 0);
        // SAFETY: a buffer of that many bytes and places for the answers.
        let status = unsafe {
            (self.services.get_memory_map)(
                &raw mut bytes,
                buffer.cast(),
                &raw mut key,
                &raw mut descriptor_bytes,
                &raw mut version,
            )
        };
        done(status, WHAT)?;
        if descriptor_bytes < size_of::<MemoryDescriptor>() {
            return Err(Refused(WHAT, Status::INCOMPATIBLE_VERSION));
        }
        let mut end = 0;
        for index in 0..bytes / descriptor_bytes {
            let at = buffer.wrapping_add(index * descriptor_bytes);
            // SAFETY: within what the firmware filled.
            let entry = unsafe { at.cast::<MemoryDescriptor>().read_unaligned() };
            if is_ram(entry.ty) {
                end = end.max(entry.phys_start + entry.page_count * PAGE_BYTES);
            }
        }
        Ok(end)
    }
}

fn done(status: Status, what: &'static str) -> Result<(), Refused> {
    if status == Status::SUCCESS {
        Ok(())
    } else {
        Err(Refused(what, status))
    }
}

/// ASCII as UCS-2; what is too long is cut, and then not found.
fn ucs2(text: &str) -> Path {
    text.bytes().take(MAX_PATH - 1).map(u16::from).collect()
}

/// Type and length of the device-path node at `at`.
fn node(at: *const u8) -> (u8, u8, usize) {
    // SAFETY: a node has four bytes at least, in the firmware's memory.
    let head = unsafe { at.cast::<[u8; 4]>().read() };
    let [kind, sub_kind, low, high] = head;
    (kind, sub_kind, usize::from(u16::from_le_bytes([low, high])))
}

/// How long a device path is, without its end.
fn device_path_bytes(path: *const DevicePathProtocol) -> usize {
    let mut bytes = 0;
    while bytes < MAX_DEVICE_PATH_BYTES {
        let (kind, _, length) = node(path.cast::<u8>().wrapping_add(bytes));
        if kind == 0x7f || length < 4 {
            break;
        }
        bytes += length;
    }
    bytes
}

/// The folder of the file that a device path's nodes of the type "media", "file
/// path" name; it ends with `\`.
fn folder_of(path: *const DevicePathProtocol) -> Path {
    let backslash = u16::from(b'\\');
    let mut folder = Path::new();
    let mut bytes = 0;
    while !path.is_null() && bytes < MAX_DEVICE_PATH_BYTES {
        let at = path.cast::<u8>().wrapping_add(bytes);
        let (kind, sub_kind, length) = node(at);
        if kind == 0x7f || length < 4 {
            break;
        }
        if (kind, sub_kind) == (4, 4) {
            // GRUB gives the folder and the file a node each.
            if folder.last().is_some_and(|&last| last != backslash) {
                let _ = folder.push(backslash);
            }
            for unit in (4..length.saturating_sub(1)).step_by(2) {
                // SAFETY: within the node.
                let unit = unsafe { at.wrapping_add(unit).cast::<u16>().read_unaligned() };
                if unit != 0 {
                    let _ = folder.push(unit);
                }
            }
        }
        bytes += length;
    }
    while folder.last().is_some_and(|&last| last != backslash) {
        let _ = folder.pop();
    }
    if folder.is_empty() {
        let _ = folder.push(backslash);
    }
    folder
}
