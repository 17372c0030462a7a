//! The handshake of the mesh: both sides, over any stream. [`super::hello`] defines the bytes.
//!
//! ```text
//! higher index: connects                       lower index: accepts
//! magic, version, length, Hello with nonce ──► checks job, generation, program, size, indices
//!                                          ◄── GO_ON and a second nonce, or a refusal's code
//! proof of the role `connects`             ──► checks the proof, reserves the process's slot
//! checks the proof                         ◄── GO_ON and the proof of `accepts`, or a code
//! ```
//!
//! The callers limit the time of a handshake ([`super::limits::HANDSHAKE_MAX`]).

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::hello;
use super::hello::{GO_ON, Hello, Identity, LEAD, Meeting, PROOF, Role, Secret};
use super::refusal::Refusal;

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Self::Closed
            }
            _ => Self::Unreached(error.to_string()),
        }
    }
}

/// The connecting side. When it returns, the other side is process `to` of the same job and has
/// accepted this one.
///
/// # Errors
///
/// The [`Refusal`] of either side.
pub(super) async fn connect<S>(
    stream: &mut S,
    me: &Identity,
    to: usize,
    secret: &Secret,
) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Hello::new(me, to, hello::nonce()?).frame()?;
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let mut nonce = hello::Nonce::default();
    answer(stream, &mut nonce).await?;
    let meeting = Meeting::new(hello, nonce);
    stream
        .write_all(&meeting.proof(Role::Connects, secret))
        .await?;
    stream.flush().await?;
    let mut proof = [0; PROOF];
    answer(stream, &mut proof).await?;
    if !meeting.proves(Role::Accepts, &proof, secret) {
        return Err(Refusal::Secret);
    }
    Ok(())
}

/// Reads the other side's answer: `rest` after [`GO_ON`], or the refusal that a code stands for.
///
/// # Errors
/// The refusal of the other side, [`Refusal::Garbage`] for an unknown code, or the end of the
/// connection.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S, rest: &mut [u8]) -> Result<(), Refusal> {
    match stream.read_u8().await? {
        GO_ON => {}
        code => return Err(Refusal::told(code)),
    }
    stream.read_exact(rest).await?;
    Ok(())
}

/// A process that has proved its identity and waits for the last step of the handshake.
#[derive(Debug)]
pub(super) struct Proven {
    /// The process's index.
    pub(super) from: usize,
    /// What both sides said so far, which the last proof covers.
    meeting: Meeting,
}

/// The accepting side, up to the point where the other side is proved to be a process of the same
/// job.
///
/// # Errors
///
/// Why the other side is refused; [`turn_away`] tells it.
pub(super) async fn accept<S>(
    stream: &mut S,
    me: &Identity,
    secret: &Secret,
) -> Result<Proven, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut lead = [0; LEAD];
    stream.read_exact(&mut lead).await?;
    let mut json = vec![0; hello::length(lead)?];
    stream.read_exact(&mut json).await?;
    let said: Hello = serde_json::from_slice(&json).map_err(|_| Refusal::Garbage)?;
    said.refused_by(me)?;
    let nonce = hello::nonce()?;
    stream.write_all(&[&[GO_ON][..], &nonce].concat()).await?;
    stream.flush().await?;
    let meeting = Meeting::new([&lead[..], &json].concat(), nonce);
    let mut proof = [0; PROOF];
    stream.read_exact(&mut proof).await?;
    if !meeting.proves(Role::Connects, &proof, secret) {
        return Err(Refusal::Secret);
    }
    let from = said.from;
    Ok(Proven { from, meeting })
}

impl Proven {
    /// The last step: proves this process's identity and completes the handshake.
    ///
    /// # Errors
    /// The connection ended.
    pub(super) async fn welcome<S>(self, stream: &mut S, secret: &Secret) -> Result<(), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let proof = self.meeting.proof(Role::Accepts, secret);
        stream.write_all(&[&[GO_ON][..], &proof].concat()).await?;
        stream.flush().await?;
        Ok(())
    }
}

/// Sends the code of a refusal, if the other side can understand it.
pub(super) async fn turn_away<S: AsyncWrite + Unpin>(stream: &mut S, why: &Refusal) {
    if let Some(code) = why.code() {
        // The other side may have closed the connection.
        let _told = stream.write_all(&[code]).await;
        let _told = stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;

    use super::*;

    fn identity(process: usize) -> Identity {
        Identity {
            job: "users".into(),
            generation: 7,
            program: "p".into(),
            process,
            processes: 3,
            threads: 2,
        }
    }

    /// Both sides' outcomes.
    async fn meet(
        connects: &Identity,
        accepts: &Identity,
        secrets: [&str; 2],
    ) -> (Result<(), Refusal>, Result<usize, Refusal>) {
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let [near_secret, far_secret] = secrets.map(Secret::new);
        tokio::join!(
            async { connect(&mut near, connects, 0, &near_secret).await },
            async {
                let proven = match accept(&mut far, accepts, &far_secret).await {
                    Ok(proven) => proven,
                    Err(why) => {
                        turn_away(&mut far, &why).await;
                        drop(far);
                        return Err(why);
                    }
                };
                let from = proven.from;
                proven.welcome(&mut far, &far_secret).await.map(|()| from)
            }
        )
    }

    const SECRET: &str = "0123456789abcdef";

    #[tokio::test]
    async fn processes_of_one_job_meet_and_nothing_is_read_of_what_follows() {
        let met = meet(&identity(2), &identity(0), [SECRET; 2]).await;
        assert_eq!(met, (Ok(()), Ok(2)));
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let secret = Secret::new(SECRET);
        let (near_identity, far_identity) = (identity(1), identity(0));
        let (connected, accepted) = tokio::join!(
            async {
                connect(&mut near, &near_identity, 0, &secret)
                    .await
                    .unwrap();
                near.write_all(b"near").await.unwrap();
                let mut said = [0; 3];
                near.read_exact(&mut said).await.unwrap();
                said
            },
            async {
                let proven = accept(&mut far, &far_identity, &secret).await.unwrap();
                proven.welcome(&mut far, &secret).await.unwrap();
                far.write_all(b"far").await.unwrap();
                let mut said = [0; 4];
                far.read_exact(&mut said).await.unwrap();
                said
            }
        );
        assert_eq!((&connected, &accepted), (b"far", b"near"));
    }

    #[tokio::test]
    async fn whoever_does_not_belong_is_refused_and_both_know_why() {
        let other = |change: &dyn Fn(&mut Identity)| {
            let mut identity = identity(1);
            change(&mut identity);
            identity
        };
        for (identity, code, why) in [
            (
                other(&|it| it.job = "orders".into()),
                2,
                Refusal::Job("orders".into()),
            ),
            (
                other(&|it| it.generation = 6),
                3,
                Refusal::Generation { its: 6, own: 7 },
            ),
            (other(&|it| it.program = "q".into()), 4, Refusal::Program),
            (
                other(&|it| it.processes = 2),
                5,
                Refusal::Size {
                    its: (2, 2),
                    own: (3, 2),
                },
            ),
            (
                other(&|it| it.threads = 3),
                5,
                Refusal::Size {
                    its: (3, 3),
                    own: (3, 2),
                },
            ),
            (
                other(&|it| it.process = 0),
                6,
                Refusal::Index { from: 0, to: 0 },
            ),
            (
                other(&|it| it.process = 3),
                6,
                Refusal::Index { from: 3, to: 0 },
            ),
        ] {
            let met = meet(&identity, &super::tests::identity(0), [SECRET; 2]).await;
            assert_eq!(met, (Err(Refusal::ByPeer(code)), Err(why)));
        }
        let looks_for_another = meet(&identity(2), &identity(1), [SECRET; 2]).await;
        let why = Refusal::Index { from: 2, to: 0 };
        assert_eq!(looks_for_another, (Err(Refusal::ByPeer(6)), Err(why)));
        for secrets in [[SECRET, ""], ["", SECRET], [SECRET, "0123456789abcdeF"]] {
            let met = meet(&identity(1), &identity(0), secrets).await;
            assert_eq!(met, (Err(Refusal::ByPeer(7)), Err(Refusal::Secret)));
        }
    }

    /// What is made of bytes that a stranger sends before it closes or goes on being silent.
    async fn stranger(bytes: &[u8], closes: bool) -> Refusal {
        accepted(bytes, closes, Duration::from_secs(60))
            .await
            .unwrap()
    }

    async fn accepted(bytes: &[u8], closes: bool, patience: Duration) -> Option<Refusal> {
        let (mut near, mut far): (DuplexStream, _) = tokio::io::duplex(1 << 16);
        near.write_all(bytes).await.unwrap();
        let kept = (!closes).then_some(near);
        let (me, secret) = (identity(0), Secret::new(SECRET));
        let accepting = accept(&mut far, &me, &secret);
        let accepted = tokio::time::timeout(patience, accepting).await;
        drop(kept);
        accepted.ok().map(|accepted| accepted.unwrap_err())
    }

    #[tokio::test]
    async fn garbage_is_refused_at_once_and_a_cut_hello_when_it_ends() {
        let http = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(stranger(http, false).await, Refusal::Garbage);
        let frame = Hello::new(&identity(1), 0, [0; 32]).frame().unwrap();
        for cut in 0..frame.len() {
            assert_eq!(
                stranger(&frame[..cut], true).await,
                Refusal::Closed,
                "{cut}"
            );
        }
        assert_eq!(stranger(&frame, true).await, Refusal::Closed);
        let mut newer = frame.clone();
        newer[9] = 2;
        assert_eq!(stranger(&newer, false).await, Refusal::Version(2));
        let mut long = frame.clone();
        long[10] = 255;
        assert_eq!(stranger(&long, false).await, Refusal::Garbage);
        let mut no_json = frame.clone();
        no_json[12] = b'[';
        assert_eq!(stranger(&no_json, false).await, Refusal::Garbage);
        // Whoever stops in the middle is waited for: its time is the listener's to end.
        let waiting = accepted(&frame[..20], false, Duration::from_millis(50));
        assert_eq!(waiting.await, None);
        let forged = [&frame[..], &[0; PROOF]].concat();
        assert_eq!(stranger(&forged, false).await, Refusal::Secret);
    }

    #[tokio::test]
    async fn another_server_is_told_from_a_refusal() {
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let met = connect(&mut near, &identity(1), 0, &Secret::new(SECRET)).await;
        assert_eq!(met, Err(Refusal::Garbage));
    }

    #[tokio::test]
    async fn who_accepts_without_the_secret_is_not_believed() {
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let secret = Secret::new(SECRET);
        let me = identity(1);
        let (outcome, ()) = tokio::join!(connect(&mut near, &me, 0, &secret), async {
            let mut lead = [0; LEAD];
            far.read_exact(&mut lead).await.unwrap();
            let mut rest = vec![0; hello::length(lead).unwrap()];
            far.read_exact(&mut rest).await.unwrap();
            far.write_all(&[&[GO_ON][..], &[7; 32]].concat())
                .await
                .unwrap();
            let mut proof = [0; PROOF];
            far.read_exact(&mut proof).await.unwrap();
            // The other's own proof is not one of this side.
            far.write_all(&[&[GO_ON][..], &proof].concat())
                .await
                .unwrap();
        });
        assert_eq!(outcome, Err(Refusal::Secret));
    }
}
