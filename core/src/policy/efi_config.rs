//! `umbra.conf`, which lies beside `umbra.efi`: one `name = value` a line, and
//! `#` before what is a remark.

use core::fmt;

/// What the file settles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config<'a> {
    /// Path of the EFI application that Umbra starts as L1, from the root of
    /// the file system that Umbra came from.
    pub next: &'a str,
    /// What that application gets as its load options.
    pub arguments: &'a str,
    /// Umbra's own command line.
    pub options: &'a str,
}

/// What is wrong with the file, in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Bytes that are no ASCII.
    NotAscii,
    /// A line that says nothing: its number.
    Line(usize),
    /// A name that means nothing: the number of its line.
    Name(usize),
    /// It does not say what to start.
    NoNext,
    /// `next` is no path from the root on.
    NoPath,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAscii => write!(f, "umbra.conf has bytes that are no ASCII"),
            Self::Line(at) => write!(f, "line {at} of umbra.conf is no `name = value`"),
            Self::Name(at) => write!(
                f,
                "line {at} of umbra.conf: there are `next`, `arguments` and `options`"
            ),
            Self::NoNext => write!(
                f,
                "umbra.conf does not say what to start: `next = \\EFI\\debian\\grubx64.efi`"
            ),
            Self::NoPath => write!(f, "`next` in umbra.conf is no path that begins with `\\`"),
        }
    }
}

/// Reads the file.
///
/// # Errors
/// [`Error`], with the number of the line.
pub fn parse(file: &[u8]) -> Result<Config<'_>, Error> {
    if !file.is_ascii() {
        return Err(Error::NotAscii);
    }
    let text = core::str::from_utf8(file).map_err(|_| Error::NotAscii)?;
    let mut config = Config::default();
    for (at, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(Error::Line(at))?;
        let value = value.trim();
        match name.trim() {
            "next" => config.next = value,
            "arguments" => config.arguments = value,
            "options" => config.options = value,
            _ => return Err(Error::Name(at)),
        }
    }
    match config.next {
        "" => Err(Error::NoNext),
        next if !next.starts_with('\\') => Err(Error::NoPath),
        _ => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let file = b"# Debian\r\nnext = \\EFI\\debian\\grubx64.efi # its GRUB\r\n\
            options = max-active-ept=4  refill=off\n\narguments=\n";
        assert_eq!(
            parse(file),
            Ok(Config {
                next: "\\EFI\\debian\\grubx64.efi",
                arguments: "",
                options: "max-active-ept=4  refill=off",
            })
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert_eq!(parse(b""), Err(Error::NoNext));
        assert_eq!(parse(b"next ="), Err(Error::NoNext));
        assert_eq!(parse(b"next = grub.efi"), Err(Error::NoPath));
        assert_eq!(parse(b"next = \\a\nwhat"), Err(Error::Line(2)));
        assert_eq!(parse(b"\nnxet = \\a"), Err(Error::Name(2)));
        assert_eq!(parse(b"next = \\\xff"), Err(Error::NotAscii));
        for error in [
            Error::NotAscii,
            Error::Line(1),
            Error::Name(2),
            Error::NoNext,
        ] {
            assert!(std::format!("{error}").contains("umbra.conf"));
        }
    }
}
