//! Where the API listens: an address, or a socket file of this machine.

use std::{
    fs::{self, File, Permissions},
    io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as Probe,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A source of connections.
pub(super) trait Listener: Send + Sync + 'static {
    /// The type of an accepted connection.
    type Io: Send + 'static;

    /// The next connection, and its peer's address if it has one.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, Option<SocketAddr>)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (socket, peer) = TcpListener::accept(self).await?;
        // Answers must not wait for delayed acknowledgements. (An error, for a
        // connection that is gone, shows up when it is read.)
        let _ = socket.set_nodelay(true);
        Ok((socket, Some(peer)))
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<SocketAddr>)> {
        let (socket, _) = UnixListener::accept(self).await?;
        Ok((socket, None))
    }
}

/// The API's listener.
pub(super) enum ApiListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Distinguishes a file from one that replaces it: device, inode (which may be
/// reused) and modification time (which permissions do not change).
type Identity = (u64, u64, i64, i64);

/// A socket file that this server listens on, to be removed when it stops.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The identity of the file, since the path may be another server's by now.
    identity: Identity,
}

impl SocketFile {
    /// Creates a socket file with these permissions and listens on it. It
    /// replaces a file left by a dead server, but not one on which a server
    /// listens.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if a server listens there;
    /// [`io::ErrorKind::AlreadyExists`] if the file is not a socket; those of
    /// the file system.
    pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // A lock, so that of several servers starting at once none takes
        // another's fresh file for a dead one's.
        let lock = File::open(folder)?;
        lock.lock()?;
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Until it listens, nobody can connect.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        let listener = socket.listen(BACKLOG)?;
        let path = std::path::absolute(path)?;
        let identity = identity(&path)?;
        Ok((listener, SocketFile { path, identity }))
    }

    /// Removes the file, unless the path is another server's by now.
    pub(super) fn remove(&self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = ?self.path, %error, "cannot remove the socket file");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Ok((metadata.dev(), metadata.ino(), seconds, nanoseconds))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let problem = "there is a file that is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    match Probe::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // A server that is too busy to accept, or another user's, counts as
        // alive.
        Ok(_) | Err(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server listens there",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_servers_file_is_replaced_and_a_live_ones_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let (listener, file) = SocketFile::listen(&path, 0o600).expect("listening");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = SocketFile::listen(&path, 0o600).expect_err("a live one");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // The state that a killed server leaves.
        drop(listener);
        let (listener, successor) = SocketFile::listen(&path, 0o660).expect("replaced");
        // The path that the dead server would remove is another's by now.
        drop(file);
        assert!(path.exists());
        drop(successor);
        assert!(!path.exists());
        drop(listener);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").expect("written");
        let error = SocketFile::listen(&path, 0o600).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("there"), "mine");
    }
}
