//! Slows down readers that find nothing new.
//!
//! The wrapped broker answers a fetch at once, whether there is something or not, and a client then asks again at
//! once: an idle consumer would keep a core busy. A client that has received nothing repeats its fetch, with the same
//! offsets; such a repetition waits [`IDLE_PAUSE`] here before it is passed on. Everything else passes through
//! unchanged, answers included.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use noida::kafka::connection::handle_connection;
use noida::kafka::engine::Engine;

/// What an idle reader waits between two looks, and so the most that a record waits for its reader.
const IDLE_PAUSE: Duration = Duration::from_millis(10);
/// The wrapped broker's own limit for a request.
const MAX_FRAME_BYTES: usize = 100 << 20;
/// `Fetch` in the Kafka protocol.
const FETCH: [u8; 2] = [0, 1];

/// Serves one connection until either side ends it.
///
/// # Errors
/// When the connection breaks, or sends what is no request.
pub(super) fn serve(client: TcpStream, engine: Engine) -> io::Result<()> {
    let (near, far) = pair()?;
    client.set_nodelay(true)?;
    let (mut answers, mut to_client) = (near.try_clone()?, client.try_clone()?);
    spawn("embedded-serve", move || handle_connection(far, engine))?;
    spawn("embedded-answer", move || {
        // Either end may close at any time; the other is then closed as well.
        let _ = io::copy(&mut answers, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    })?;
    let outcome = pass_requests(client, &near);
    near.shutdown(Shutdown::Both)?;
    outcome
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

fn pass_requests(client: TcpStream, mut broker: &TcpStream) -> io::Result<()> {
    let mut client = io::BufReader::new(client);
    let mut last_fetch = (0, 0);
    loop {
        let mut length = [0; 4];
        match client.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let size = u32::from_be_bytes(length) as usize;
        if size > MAX_FRAME_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large for a request"));
        }
        // One write for both parts, so that they leave together.
        let mut frame = Vec::with_capacity(4 + size);
        frame.extend_from_slice(&length);
        frame.resize(4 + size, 0);
        client.read_exact(&mut frame[4..])?;
        if frame.len() >= 12 && frame[4..6] == FETCH {
            let fetch = likeness(&frame[12..]);
            if fetch == last_fetch {
                thread::sleep(IDLE_PAUSE);
            }
            last_fetch = fetch;
        }
        broker.write_all(&frame)?;
    }
}

/// The same for two fetches of the same offsets: clients take turns in which partition they name first, so that the
/// bytes are the same but not their order. Two that differ may look alike, which costs one pause.
fn likeness(fetch: &[u8]) -> (usize, u64) {
    (fetch.len(), fetch.iter().map(|byte| u64::from(*byte)).sum())
}

/// Two connected sockets: the wrapped broker takes nothing else.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, peer) = listener.accept()?;
    if peer != near.local_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "another program took the inner connection",
        ));
    }
    near.set_nodelay(true)?;
    Ok((near, far))
}
