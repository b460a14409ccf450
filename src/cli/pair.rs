//! A certificate and its key in two files, and the next pair beside them until it takes their place.
//!
//! Two files cannot be replaced at once, so power may be cut between any two steps. What a step wrote
//! is on disk before the next one begins, and whichever files a start finds, it tells by the keys
//! which step was the last:
//!
//! 1. `KEY.next` is there, and waits for its certificate: it is used for the next request too.
//! 2. `CERT.next` is there: the pair is whole, and is tried before anything else.
//! 3. `CERT.proving` is there: `CERT.previous` and `KEY.previous` hold the pair in use, and whatever
//!    else could fail was tried. Nothing but renames is left for the time when the server may refuse it.
//! 4. It has become `CERT.switching`: the server has accepted the next pair.
//! 5. `KEY.next` has become `KEY`: the key in place is that of `CERT.next`.
//! 6. `CERT.next` has become `CERT`. Only `CERT.switching` says that somebody must still be told.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::client::{first, private_key};
use crate::client::{Identity, public_key};
use crate::files::sync_folder;
use crate::keys::SigningKey;
use crate::pki::{Certificate, CertificationRequest, Fingerprint};

const SECRET: Access = Access { owner: None, group: None, mode: 0o600 };
const PUBLIC: Access = Access { owner: None, group: None, mode: 0o644 };
/// What a key in use may allow, and a certificate.
const SECRET_MASK: u32 = 0o660;
const PUBLIC_MASK: u32 = 0o664;

/// The files of one pair.
#[derive(Clone)]
pub(super) struct PairFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// Who may do what with a file; whose it is does not matter if that is not said.
struct Access {
    owner: Option<u32>,
    group: Option<u32>,
    mode: u32,
}

/// SHA-256 of the public key that each file has to do with, for those that are there and hold one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    certificate: Option<Fingerprint>,
    key: Option<Fingerprint>,
    next_certificate: Option<Fingerprint>,
    next_key: Option<Fingerprint>,
}

/// What the files mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One pair, and no other on its way.
    Settled,
    /// One pair, and the next key, which has no certificate yet, or not any more.
    KeyWaits,
    /// One pair, and a next certificate without its key, which is of no use.
    KeyLost,
    /// Two pairs.
    NextIsWhole,
    /// The key has been replaced, its certificate not yet.
    KeyReplaced,
    /// The key in use is that of no certificate.
    Mixed,
}

impl Found {
    fn meaning(self) -> Meaning {
        let Self { certificate, key, next_certificate, next_key } = self;
        if key.is_none() || key != certificate {
            let replaced = key.is_some() && key == next_certificate;
            return if replaced { Meaning::KeyReplaced } else { Meaning::Mixed };
        }
        match next_key {
            None if next_certificate.is_none() => Meaning::Settled,
            None => Meaning::KeyLost,
            Some(_) if next_key == next_certificate => Meaning::NextIsWhole,
            Some(_) => Meaning::KeyWaits,
        }
    }
}

impl PairFiles {
    /// The pair in these two files. Symbolic links stay: what they lead to is replaced.
    pub(super) fn new(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let place = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
        let (certificate, key) = (place(certificate)?, place(key)?);
        ensure!(certificate != key, "{}: certificate and key must be two files", key.display());
        Ok(Self { certificate, key })
    }

    pub(super) fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    /// Keeps every other program of this kind away until what comes back is dropped.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = beside(&self.key, "lock");
        let locked = || {
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(false).mode(SECRET.mode).open(&path)?;
            file.try_lock()?;
            io::Result::Ok(file)
        };
        locked().with_context(|| {
            format!("{}: is another `estd client renew` at work on these files?", path.display())
        })
    }

    /// What the files mean. A certificate that was half in place is put there: see [`Self::switch`].
    pub(super) fn settle(&self) -> anyhow::Result<Meaning> {
        match self.meaning()? {
            Meaning::KeyReplaced => {
                self.switch_certificate()?;
                Ok(Meaning::Settled)
            }
            Meaning::Mixed => {
                // Says what is wrong with a file that cannot be read.
                self.present()?;
                bail!(
                    "{} is not the key of {}: put the right one there",
                    self.key.display(),
                    self.certificate.display()
                )
            }
            meaning => Ok(meaning),
        }
    }

    fn meaning(&self) -> anyhow::Result<Meaning> {
        let found = Found {
            certificate: of_certificate(&self.certificate).unwrap_or(None),
            key: of_key(&self.key).unwrap_or(None),
            // One that cannot be read now is not gone: it may be all that the server still accepts.
            next_certificate: of_certificate(&self.next_certificate())?,
            next_key: of_key(&self.next_key())?,
        };
        Ok(found.meaning())
    }

    /// The pair in use.
    pub(super) fn present(&self) -> anyhow::Result<Identity> {
        identity(&self.certificate, &self.key)
    }

    /// The next pair.
    pub(super) fn next(&self) -> anyhow::Result<Identity> {
        identity(&self.next_certificate(), &self.next_key())
    }

    /// The key that waits for its certificate.
    pub(super) fn waiting_key(&self) -> anyhow::Result<SigningKey> {
        let path = self.next_key();
        let key = private_key(&path)?;
        SigningKey::from_der(key.secret_der()).with_context(|| path.display().to_string())
    }

    pub(super) fn keep_next_key(&self, key: &SigningKey) -> anyhow::Result<()> {
        write(&self.next_key(), key.to_pem()?.as_bytes(), &SECRET)
    }

    pub(super) fn keep_next_certificate(&self, pem: &str) -> anyhow::Result<()> {
        // Another certificate than this may have been tried before, and lost.
        self.forget_proof()?;
        write(&self.next_certificate(), pem.as_bytes(), &PUBLIC)
    }

    /// The request that waits for an operator, who knows it by its bytes.
    pub(super) fn waiting_request(&self) -> Option<CertificationRequest> {
        CertificationRequest::from_pem(&fs::read(self.request()).ok()?).ok()
    }

    pub(super) fn keep_waiting_request(&self, pem: &str) -> anyhow::Result<()> {
        write(&self.request(), pem.as_bytes(), &PUBLIC)
    }

    /// Forgets a key that no certificate will be issued for; or puts it aside, if it had one that was
    /// tried and was lost: the server may accept no other key.
    pub(super) fn give_next_key_up(&self) -> anyhow::Result<()> {
        remove(&self.request())?;
        if !self.proving().exists() && !self.is_switching() {
            return remove(&self.next_key());
        }
        rename(&self.next_key(), &beside(&self.key, "refused"))?;
        self.forget_proof()
    }

    /// Puts the next pair aside, which the server refuses.
    pub(super) fn set_next_aside(&self) -> anyhow::Result<()> {
        // The key first: a certificate that is left alone means nothing, a key would be asked for.
        rename(&self.next_key(), &beside(&self.key, "refused"))?;
        rename(&self.next_certificate(), &beside(&self.certificate, "refused"))?;
        self.forget_proof()?;
        remove(&self.request())
    }

    fn forget_proof(&self) -> anyhow::Result<()> {
        remove(&self.proving())?;
        remove(&self.switching())
    }

    /// Whether the server has accepted the next pair.
    pub(super) fn is_switching(&self) -> bool {
        self.switching().exists()
    }

    /// Does whatever of the switch could fail, once for each next pair, as long as the server still
    /// accepts the present one: keeps that, gives the next one its owner, group and mode, and
    /// replaces each file in use by a copy of itself.
    pub(super) fn prepare_switch(&self) -> anyhow::Result<()> {
        if self.proving().exists() {
            return Ok(());
        }
        for (file, mask) in [(&self.key, SECRET_MASK), (&self.certificate, PUBLIC_MASK)] {
            let (access, next) = (Access::of(file)?, beside(file, "next"));
            let allowed = Access { mode: access.mode & mask, ..access };
            copy(file, &beside(file, "previous"), &allowed)?;
            copy(&next, &next, &allowed)?;
            copy(file, file, &access).with_context(|| {
                let file = file.display();
                format!(
                    "{file} cannot be replaced, so the new pair is not tried: is it a mount of its own?"
                )
            })?;
        }
        write(&self.proving(), b"`estd client renew` tries a new pair.\n", &PUBLIC)
    }

    /// Says, before anything is replaced, that the server has accepted the next pair.
    pub(super) fn begin_switch(&self) -> anyhow::Result<()> {
        rename(&self.proving(), &self.switching())
    }

    /// Puts the next pair in place.
    pub(super) fn switch(&self) -> anyhow::Result<()> {
        rename(&self.next_key(), &self.key)?;
        self.switch_certificate()
    }

    fn switch_certificate(&self) -> anyhow::Result<()> {
        rename(&self.next_certificate(), &self.certificate)
    }

    /// Says that the switch is over and whoever uses the pair has been told.
    pub(super) fn end_switch(&self) -> anyhow::Result<()> {
        remove(&self.request())?;
        remove(&self.switching())
    }

    fn next_certificate(&self) -> PathBuf {
        beside(&self.certificate, "next")
    }

    fn next_key(&self) -> PathBuf {
        beside(&self.key, "next")
    }

    fn request(&self) -> PathBuf {
        beside(&self.certificate, "next.csr")
    }

    fn proving(&self) -> PathBuf {
        beside(&self.certificate, "proving")
    }

    fn switching(&self) -> PathBuf {
        beside(&self.certificate, "switching")
    }
}

impl Access {
    /// That of a file.
    fn of(path: &Path) -> anyhow::Result<Self> {
        let found = fs::metadata(path).with_context(|| path.display().to_string())?;
        let (owner, group) = (Some(found.uid()), Some(found.gid()));
        Ok(Self { owner, group, mode: found.mode() & 0o777 })
    }

    /// Gives it to a file that is ours.
    fn give(&self, file: &File) -> io::Result<()> {
        let mode = match fchown(file, self.owner, self.group) {
            // Not everybody may give files away. Our own group is not the one that was meant.
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => self.mode & !0o070,
            given => given.map(|()| self.mode)?,
        };
        file.set_permissions(Permissions::from_mode(mode))
    }
}

fn of_certificate(path: &Path) -> anyhow::Result<Option<Fingerprint>> {
    let of =
        |pem: &[u8]| Some(Certificate::from_pem(pem).ok()?.first()?.public_key().fingerprint());
    Ok(contents(path)?.and_then(|pem| of(&pem)))
}

fn of_key(path: &Path) -> anyhow::Result<Option<Fingerprint>> {
    let of = |pem: &[u8]| {
        let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
        public_key(key.secret_der()).ok().map(|key| key.fingerprint())
    };
    Ok(contents(path)?.and_then(|pem| of(&pem)))
}

/// What is in a file, if it is there.
fn contents(path: &Path) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
    match fs::read(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(Zeroizing::new(read.with_context(|| path.display().to_string())?))),
    }
}

fn identity(certificate: &Path, key: &Path) -> anyhow::Result<Identity> {
    let certificate = first(certificate)?;
    let key = private_key(key)?;
    Ok(Identity { certificate, key: Zeroizing::new(key.secret_der().to_vec()) })
}

/// `PATH.SUFFIX`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Writes a file whole: at any moment it is the old one or the new one, and the new one is on disk
/// when this returns.
fn write(path: &Path, contents: &[u8], access: &Access) -> anyhow::Result<()> {
    let unfinished = beside(path, "unfinished");
    let written = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(SECRET.mode);
        let mut file = options.open(&unfinished)?;
        access.give(&file)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    written().with_context(|| unfinished.display().to_string())?;
    rename(&unfinished, path)
}

fn copy(from: &Path, to: &Path, access: &Access) -> anyhow::Result<()> {
    let contents = Zeroizing::new(fs::read(from).with_context(|| from.display().to_string())?);
    write(to, &contents, access)
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    let renamed = fs::rename(from, to).and_then(|()| sync_folder(to));
    renamed.with_context(|| to.display().to_string())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path).and_then(|()| sync_folder(path)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_files_has_one_meaning() {
        let key = |name: char| Some(Fingerprint::of(name.to_string().as_bytes()));
        let found = |names: &str| {
            let mut names = names.chars().map(|name| if name == '-' { None } else { key(name) });
            Found {
                certificate: names.next().unwrap(),
                key: names.next().unwrap(),
                next_certificate: names.next().unwrap(),
                next_key: names.next().unwrap(),
            }
        };
        for (names, meaning) in [
            // Certificate, key, next certificate, next key, each by whose key it is.
            ("aa--", Meaning::Settled),
            ("aa-b", Meaning::KeyWaits),
            ("aabb", Meaning::NextIsWhole),
            ("abb-", Meaning::KeyReplaced),
            ("bb--", Meaning::Settled),
            // Not left by any step, but by people.
            ("aab-", Meaning::KeyLost),
            ("aaa-", Meaning::KeyLost),
            ("aabc", Meaning::KeyWaits),
            ("abbb", Meaning::KeyReplaced),
            ("ab--", Meaning::Mixed),
            ("abcc", Meaning::Mixed),
            ("abc-", Meaning::Mixed),
            ("a-bb", Meaning::Mixed),
            ("-abb", Meaning::Mixed),
            ("-bb-", Meaning::KeyReplaced),
            ("----", Meaning::Mixed),
        ] {
            assert_eq!(found(names).meaning(), meaning, "{names}");
        }
    }

    #[test]
    fn a_switch_keeps_the_old_pair_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let texts = [("c", "old"), ("k", "old key"), ("c.next", "new"), ("k.next", "new key")];
        for (name, text) in texts {
            fs::write(path(name), text).unwrap();
        }
        fs::set_permissions(path("k"), Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(path("c"), Permissions::from_mode(0o640)).unwrap();
        let files = PairFiles::new(&path("c"), &path("k")).unwrap();
        files.prepare_switch().unwrap();
        let inode = |name: &str| path(name).metadata().unwrap().ino();
        let mode = |name: &str| path(name).metadata().unwrap().mode() & 0o777;
        assert_eq!([mode("c"), mode("k")], [0o640, 0o644], "as before");
        let before = ["c", "k", "c.next", "k.next"].map(inode);
        files.prepare_switch().unwrap();
        assert_eq!(["c", "k", "c.next", "k.next"].map(inode), before, "once");
        files.begin_switch().unwrap();
        assert!(files.is_switching());
        files.switch().unwrap();
        files.end_switch().unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!([read("c"), read("k")], ["new", "new key"]);
        assert_eq!([read("c.previous"), read("k.previous")], ["old", "old key"]);
        let modes = ["c", "k", "c.previous", "k.previous"].map(mode);
        assert_eq!(modes, [0o640, 0o640, 0o640, 0o640], "a key is not for everybody");
        assert!(!files.is_switching());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["c", "k"].map(|name| folder.path().join(name));
        fs::write(&certificate, "").unwrap();
        fs::write(&key, "").unwrap();
        assert!(PairFiles::new(&key, &key).is_err());
        let files = PairFiles::new(&certificate, &key).unwrap();
        let alone = files.lock().unwrap();
        let second = format!("{:#}", files.lock().unwrap_err());
        assert!(second.contains("another `estd client renew`"), "{second}");
        drop(alone);
        files.lock().unwrap();
    }
}
