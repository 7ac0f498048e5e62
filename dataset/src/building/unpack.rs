//! Takes the compression off a file, and names what it cannot read.
//!
//! What the file's first bytes say counts more than its name. Gzip and zstd are unpacked as their own
//! programs do: members and frames follow one another, zeros behind a member of gzip are padding
//! (`tar`, tapes and some stores write them), frames of zstd may be skippable.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::GzDecoder;

use crate::utf8::{self, BYTE_ORDER_MARK};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 18;

/// Bytes of a file's start that say what it is: those of a tar archive's name lie furthest behind.
const HEAD_BYTES: usize = 262;

/// Largest window of zstd that is read, as a power of two: the largest that its own program writes
/// (`--long=31`). So many bytes are taken while a file is read whose frames ask for them.
const WINDOW_LOG_MAX: u32 = 31;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Compressions that are not read, by the extension of a file.
const OTHER_EXTENSIONS: [(&str, &str); 12] = [
    (".xz", "xz"),
    (".lzma", "lzma"),
    (".bz2", "bzip2"),
    (".lz4", "lz4"),
    (".lz", "lzip"),
    (".br", "Brotli"),
    (".sz", "snappy"),
    (".snappy", "snappy"),
    (".Z", "compress"),
    (".zip", "zip"),
    (".7z", "7-Zip"),
    (".rar", "RAR"),
];

/// How files start that are no text.
const OTHER_STARTS: [(&[u8], &str); 19] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP\x01", "lzip"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"\x1f\x9d", "compress"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"PAR1", "Parquet, which is read by its extension .parquet or with the format parquet:"),
    (b"ARROW1\0", "Arrow"),
    (b"Obj\x01", "Avro"),
    (b"\x89HDF\r\n", "HDF5"),
    (b"SQLite format 3\0", "SQLite"),
    (b"%PDF-", "PDF"),
    // UTF-32 before UTF-16, whose mark it starts with.
    (b"\xff\xfe\0\0", UTF_32),
    (b"\0\0\xfe\xff", UTF_32),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    (b"\x89PNG\r\n", "PNG"),
];

const UTF_16: &str = "UTF-16";
const UTF_32: &str = "UTF-32";

/// How a file is compressed as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A file's content as it is read.
pub(super) type Input = Box<dyn BufRead + Send>;

/// The content of a file of which `named` is the compression that its name says.
///
/// # Errors
/// The text says what the file is and what to do.
pub(super) fn unpack(raw: impl Read + Send + 'static, named: Compression) -> io::Result<Input> {
    let (head, raw) = peek(Box::new(BufReader::with_capacity(BUFFER_BYTES, raw)))?;
    let found = compression(&head, named);
    let inner: Input = match found {
        _ if head.is_empty() && named == Compression::None => return Ok(raw),
        _ if head.is_empty() => return Err(refused("it is empty: the file is cut off")),
        Compression::None if named != Compression::None => {
            return Err(refused(&format!(
                "it is named as {} and starts otherwise: is it cut off, or unpacked already? Then \
                 take the ending from its name",
                if named == Compression::Gzip { "gzip" } else { "zstd" }
            )));
        }
        Compression::None => raw,
        Compression::Gzip => buffered(Gzip::new(raw)),
        Compression::Zstd => {
            let mut inner = zstd::stream::read::Decoder::with_buffer(raw)?;
            inner.window_log_max(WINDOW_LOG_MAX)?;
            buffered(Zstd(inner))
        }
    };
    let (head, inner) = match found {
        Compression::None => (head, inner),
        _ => peek(inner)?,
    };
    match other_kind(&head) {
        Some(kind) => Err(refused(&not_read(kind))),
        None => Ok(inner),
    }
}

/// The text that `bytes` are, without a byte order mark, with U+FFFD for what is not UTF-8; and what was not.
///
/// # Errors
/// They are packed, or text in another encoding: which, and what to do.
pub fn text_of(bytes: &[u8]) -> Result<(String, Option<String>), String> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    match compression(bytes, Compression::None) {
        Compression::Gzip => return Err("gzip is not read here; `gzip -d FILE` unpacks it".into()),
        Compression::Zstd => return Err("zstd is not read here; `zstd -d FILE` unpacks it".into()),
        Compression::None => {}
    }
    match other_kind(bytes) {
        Some(kind) => Err(not_read(kind)),
        None => Ok(utf8::mend(bytes, 0)),
    }
}

/// What a file's name says of a compression that is not read, and the name beneath it.
pub(super) fn other_compression(name: &str) -> Option<(&str, String)> {
    let found = OTHER_EXTENSIONS
        .iter()
        .find_map(|(ending, kind)| name.strip_suffix(ending).map(|stem| (stem, not_read(kind))));
    found
}

fn not_read(kind: &str) -> String {
    let advice = match kind {
        UTF_16 | UTF_32 => {
            return format!(
                "the text is {kind}, and UTF-8 is read: `iconv -f {kind} -t UTF-8 FILE > NEW` \
                 makes it that"
            )
        }
        "xz" | "lzma" => "`xz -dc FILE | zstd > FILE.zst` packs it anew",
        "bzip2" => "`bzip2 -dc FILE | zstd > FILE.zst` packs it anew",
        "lz4" => "`lz4 -dc FILE | zstd > FILE.zst` packs it anew",
        "Brotli" => "`brotli -dc FILE | zstd > FILE.zst` packs it anew",
        "compress" => "`gzip -dc FILE | zstd > FILE.zst` packs it anew",
        "zip" | "7-Zip" | "RAR" | "tar" => "unpack the archive and name its folder",
        _ => "text, JSONL and Parquet are, the first two also packed by gzip or zstd",
    };
    format!("{kind} is not read; {advice}")
}

fn refused(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

fn buffered(inner: impl Read + Send + 'static) -> Input {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, inner))
}

/// The first bytes of an input, and all of it.
fn peek(mut input: Input) -> io::Result<(Vec<u8>, Input)> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    input.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let whole = Box::new(Cursor::new(head.clone()).chain(input));
    Ok((head, whole))
}

/// The compression of a file: neither of the two starts is UTF-8. A frame that zstd skips could be, and is one only where
/// the name says so.
fn compression(head: &[u8], named: Compression) -> Compression {
    let is_skippable = head.len() >= 4 && head[0] >> 4 == 5 && head[1..4] == *b"\x2a\x4d\x18";
    match named {
        _ if head.starts_with(GZIP) => Compression::Gzip,
        _ if head.starts_with(ZSTD) => Compression::Zstd,
        Compression::Zstd if is_skippable => Compression::Zstd,
        _ => Compression::None,
    }
}

/// What a file is that is no text in UTF-8.
fn other_kind(head: &[u8]) -> Option<&'static str> {
    let start = OTHER_STARTS.iter().find(|(start, _)| head.starts_with(start));
    let is_bzip2 = head.starts_with(b"BZh") && head.get(4..10) == Some(b"1AY&SY");
    match start {
        Some((_, kind)) => Some(kind),
        None if is_bzip2 => Some("bzip2"),
        None if head.get(257..262) == Some(b"ustar") => Some("tar"),
        None if is_wide(head) => Some(UTF_16),
        None => None,
    }
}

/// Whether every other byte is zero and none between them: UTF-16 without a mark.
fn is_wide(head: &[u8]) -> bool {
    let pairs = || head.chunks_exact(2).take(32);
    let is_big = pairs().all(|pair| pair[0] == 0 && pair[1] != 0);
    let is_little = pairs().all(|pair| pair[0] != 0 && pair[1] == 0);
    head.len() >= 8 && (is_big || is_little)
}

/// The members of a file of gzip.
struct Gzip {
    /// The member that is being read.
    member: Option<GzDecoder<Counted>>,
    /// The file, between members.
    between: Option<Counted>,
}

/// Counts the bytes that are used.
struct Counted {
    input: Input,
    used: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.used += read as u64;
        Ok(read)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.used += bytes as u64;
        self.input.consume(bytes);
    }
}

impl Gzip {
    fn new(input: Input) -> Self {
        Self { member: Some(GzDecoder::new(Counted { input, used: 0 })), between: None }
    }

    /// Goes to the next member behind padding; `false` at the end of the file.
    fn next_member(&mut self) -> io::Result<bool> {
        let Some(mut input) = self.between.take() else {
            return Ok(false);
        };
        skip_zeros(&mut input)?;
        match input.fill_buf()?.first() {
            None => Ok(false),
            Some(&first) if first == GZIP[0] => {
                self.member = Some(GzDecoder::new(input));
                Ok(true)
            }
            Some(_) => Err(refused(&format!(
                "what follows the gzip data at byte {} is neither gzip nor padding of zeros; \
                 `gzip -dc FILE | gzip > NEW` leaves it out",
                input.used
            ))),
        }
    }
}

/// Passes over bytes that are zero.
fn skip_zeros(input: &mut Counted) -> io::Result<()> {
    loop {
        let available = input.fill_buf()?;
        let zeros = available.iter().take_while(|byte| **byte == 0).count();
        let is_end = zeros < available.len() || available.is_empty();
        input.consume(zeros);
        if is_end {
            return Ok(());
        }
    }
}

impl Read for Gzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(member) = &mut self.member {
                match member.read(buffer).map_err(|error| broken("gzip", &error))? {
                    0 => self.between = self.member.take().map(GzDecoder::into_inner),
                    read => return Ok(read),
                }
            }
            if !self.next_member()? {
                return Ok(0);
            }
        }
    }
}

/// The frames of a file of zstd.
struct Zstd(zstd::stream::read::Decoder<'static, Input>);

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.to_string() {
            reason if reason.contains("too much memory") => refused(&format!(
                "its zstd window is larger than 2^{WINDOW_LOG_MAX} bytes, and zstd itself writes \
                 none that is: the file is damaged, or its text to be packed anew"
            )),
            _ => broken("zstd", &error),
        })
    }
}

/// Says of which data an error is, and that they are cut off where that is all.
fn broken(kind: &str, error: &io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file is cut off".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("the {kind} data cannot be unpacked: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// A frame of zstd with one unpacked block, which asks for a window of `2^log` bytes.
    fn zstd_frame(text: &str, log: u8) -> Vec<u8> {
        let block = u32::try_from(text.len()).unwrap() << 3 | 1;
        let header = [ZSTD, &[0, (log - 10) << 3], &block.to_le_bytes()[..3]].concat();
        [&header, text.as_bytes()].concat()
    }

    fn read(bytes: &[u8], named: Compression) -> Result<String, String> {
        let raw = Cursor::new(bytes.to_vec());
        let mut input = unpack(raw, named).map_err(|error| error.to_string())?;
        let mut text = String::new();
        input.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[test]
    fn members_of_gzip_follow_each_other_with_zeros_between_and_behind() {
        let zeros = [0; 512];
        let two = [&gzip("one "), &zeros[..7], &gzip("two"), &zeros].concat();
        assert_eq!(read(&two, Compression::Gzip).unwrap(), "one two");
        let close = [gzip("one "), gzip(""), gzip("two")].concat();
        assert_eq!(read(&close, Compression::Gzip).unwrap(), "one two");
        assert_eq!(read(&gzip(""), Compression::Gzip).unwrap(), "");
        // A download that failed: gzip itself says "unexpected end of file".
        assert!(read(b"", Compression::Gzip).unwrap_err().contains("cut off"));
    }

    #[test]
    fn gzip_that_is_cut_or_followed_by_something_else_is_an_error() {
        let one = gzip("a text that is long enough to be cut");
        for cut in 3..one.len() {
            let error = read(&one[..cut], Compression::Gzip).unwrap_err();
            assert!(error.contains("is cut off"), "{cut}: {error}");
            let second = [&one, &one[..cut]].concat();
            assert!(read(&second, Compression::Gzip).unwrap_err().contains("is cut off"), "{cut}");
        }
        let followed = [&one, &[0, 0][..], b"xyz"].concat();
        let error = read(&followed, Compression::Gzip).unwrap_err();
        assert!(error.contains(&format!("at byte {}", one.len() + 2)), "{error}");
        let zeros = read(&[0; 64], Compression::Gzip).unwrap_err();
        assert!(zeros.contains("named as gzip and starts otherwise"), "{zeros}");
    }

    #[test]
    fn frames_of_zstd_may_be_many_skippable_and_of_long_windows() {
        let skippable = b"\x53\x2a\x4d\x18\x03\0\0\0abc";
        let frames =
            [skippable, &zstd_frame("one ", 20)[..], skippable, &zstd_frame("two", 31)].concat();
        assert_eq!(read(&frames, Compression::Zstd).unwrap(), "one two");
        let wider = read(&zstd_frame("one", 32), Compression::Zstd).unwrap_err();
        assert!(wider.contains("window is larger than 2^31"), "{wider}");
        let cut = zstd_frame("one", 27);
        let cut = read(&cut[..cut.len() - 1], Compression::Zstd).unwrap_err();
        assert!(cut.contains("the file is cut off"), "{cut}");
    }

    #[test]
    fn what_a_file_starts_with_counts_more_than_its_name() {
        assert_eq!(read(&gzip("one"), Compression::None).unwrap(), "one");
        assert_eq!(read(&zstd_frame("one", 20), Compression::Gzip).unwrap(), "one");
        let plain = read(b"{\"text\": 1}", Compression::Gzip).unwrap_err();
        assert!(plain.contains("unpacked already"), "{plain}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let starts: [(&[u8], &str); 7] = [
            (b"\xfd7zXZ\0\0", "xz is not read; `xz -dc"),
            (b"BZh91AY&SY\0", "bzip2 is not read"),
            (b"PK\x03\x04\0", "zip is not read"),
            (b"PAR1\0", "Parquet"),
            (b"\xff\xfeh\0i\0", "iconv -f UTF-16"),
            (b"{\0\"\0t\0e\0", "the text is UTF-16"),
            (&tar, "tar is not read"),
        ];
        for (start, expected) in starts {
            for bytes in [start.to_vec(), zstd::encode_all(start, 1).unwrap()] {
                let error = read(&bytes, Compression::None).unwrap_err();
                assert!(error.contains(expected), "{error}");
            }
        }
        assert_eq!(other_compression("b/a.jsonl.xz").unwrap().0, "b/a.jsonl");
        assert!(other_compression("a.jsonl.zst").is_none());
    }
}
