//! Wire format of the mesh's handshake, and the proofs that both sides know the secret.
//!
//! The connecting side sends [`MAGIC`], the protocol's version (u16), a length (u16, both
//! big-endian) and a [`Hello`] as JSON. The accepting side answers with one byte: [`GO_ON`] and a
//! nonce, or the code of a refusal. Then the connecting side sends its proof, and only then the
//! accepting side sends [`GO_ON`] and its own. Therefore somebody who does not know the secret
//! receives nothing from which a weak secret could be guessed.
//!
//! Each proof is the HMAC-SHA256 of the sender's role, the whole hello (which contains the first
//! nonce) and the second nonce. A proof is valid in one handshake only.
//!
//! ```text
//! bytes   0        8         10       12              12+n
//!         tidemesh │ version │ n      │ Hello as JSON │
//!                    u16 BE    u16 BE   n ≤ 1024
//! ```
//!
//! HMAC-SHA256 is defined in RFC 2104 and FIPS 180-4.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::limits::VERSION;
use super::refusal::Refusal;

/// The first bytes of every connection.
pub(super) const MAGIC: &[u8; 8] = b"tidemesh";
/// Bytes before the JSON of a hello: magic, version and length.
pub(super) const LEAD: usize = MAGIC.len() + 4;
/// Limit of a hello's JSON, in bytes.
pub(super) const HELLO_BYTES_MAX: usize = 1024;
/// The answer byte that is not a refusal.
pub(super) const GO_ON: u8 = 0;
/// Bytes of a proof: one HMAC-SHA256.
pub(super) const PROOF: usize = 32;

/// Random bytes that make each handshake unique.
pub(super) type Nonce = [u8; 32];

/// The identity of a process within its job.
///
/// All fields but [`Identity::process`] must be equal in all processes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The job's name.
    pub job: String,
    /// The generation that a master gave; 0 when no master counts generations.
    pub generation: u64,
    /// Hash of everything else that all processes must have in common: see [`program`].
    pub program: String,
    /// Index of the process, from 0.
    pub process: usize,
    /// Number of processes.
    pub processes: usize,
    /// Worker threads of each process.
    pub threads: usize,
}

/// A hash of 32 hexadecimal digits (128 bits of SHA-256) over `parts`: what the processes of a job
/// must have in common to understand each other's rows.
///
/// Each part is hashed with its length, so moving a character from one part to the next changes the
/// hash.
///
/// ```
/// use tidemill_mesh::program;
///
/// assert_eq!(program(&["1.0", "SELECT"]).len(), 32);
/// assert_ne!(program(&["1.0", "SELECT"]), program(&["1.0S", "ELECT"]));
/// ```
pub fn program(parts: &[&str]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    hex.take(16).collect()
}

/// The first message of the connecting side: its identity, the index that it wants to reach, and a
/// nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The job's name.
    job: String,
    /// The generation of the sender.
    generation: u64,
    /// Hash of what all processes must have in common.
    program: String,
    /// The sender's index.
    pub(super) from: usize,
    /// The index that the sender wants to reach.
    to: usize,
    /// The number of processes that the sender was started for.
    processes: usize,
    /// The number of threads of each of them.
    threads: usize,
    /// The nonce of the connecting side.
    nonce: Nonce,
}

impl Hello {
    /// The hello of process `me` to process `to`.
    pub(super) fn new(me: &Identity, to: usize, nonce: Nonce) -> Self {
        Self {
            job: me.job.clone(),
            generation: me.generation,
            program: me.program.clone(),
            from: me.process,
            to,
            processes: me.processes,
            threads: me.threads,
            nonce,
        }
    }

    /// The bytes on the wire.
    ///
    /// # Errors
    ///
    /// The JSON is longer than a u16 can say.
    pub(super) fn frame(&self) -> std::io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u16::try_from(json.len()).map_err(std::io::Error::other)?;
        let mut frame = MAGIC.to_vec();
        frame.extend(VERSION.to_be_bytes());
        frame.extend(length.to_be_bytes());
        frame.extend(json);
        Ok(frame)
    }

    /// Checks a hello against this process's identity.
    ///
    /// # Errors
    ///
    /// The first difference. Only higher indices connect to lower ones.
    pub(super) fn refused_by(&self, me: &Identity) -> Result<(), Refusal> {
        let (its, own) = ((self.processes, self.threads), (me.processes, me.threads));
        if self.job != me.job {
            // A stranger chose this text, so only its begin is kept.
            let job: String = self.job.chars().take(64).collect();
            Err(Refusal::Job(job))
        } else if self.generation != me.generation {
            let (its, own) = (self.generation, me.generation);
            Err(Refusal::Generation { its, own })
        } else if self.program != me.program {
            Err(Refusal::Program)
        } else if its != own {
            Err(Refusal::Size { its, own })
        } else if self.to != me.process || self.from <= me.process || self.from >= me.processes {
            let (from, to) = (self.from, self.to);
            Err(Refusal::Index { from, to })
        } else {
            Ok(())
        }
    }
}

/// Checks the bytes before a hello and returns the length of its JSON.
///
/// # Errors
///
/// Another protocol or another version of it, or a length above [`HELLO_BYTES_MAX`].
pub(super) fn length(lead: [u8; LEAD]) -> Result<usize, Refusal> {
    let (magic, rest) = lead.split_at(MAGIC.len());
    let &[v1, v2, l1, l2] = rest else {
        return Err(Refusal::Garbage);
    };
    let (version, length) = (u16::from_be_bytes([v1, v2]), u16::from_be_bytes([l1, l2]));
    let length = usize::from(length);
    if magic != MAGIC {
        return Err(Refusal::Garbage);
    }
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    if length > HELLO_BYTES_MAX {
        return Err(Refusal::Garbage);
    }
    Ok(length)
}

/// A nonce from the system's random numbers.
///
/// # Errors
/// The system gives no random numbers.
pub(super) fn nonce() -> std::io::Result<Nonce> {
    let mut nonce = Nonce::default();
    let filled = SystemRandom::new().fill(&mut nonce);
    filled.map_err(|_| std::io::Error::other("the system has no random numbers"))?;
    Ok(nonce)
}

/// The secret that the processes of a job share, as an HMAC key.
#[derive(Debug, Clone)]
pub(crate) struct Secret(hmac::Key);

impl Secret {
    /// An empty text is a secret that everybody knows.
    pub(crate) fn new(text: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }
}

/// The two sides of a handshake. A proof names the role of its sender, so it cannot be sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The side with the higher index.
    Connects,
    /// The side with the lower index.
    Accepts,
}

/// Everything that both sides saw of one handshake, which the proofs cover.
#[derive(Debug)]
pub(super) struct Meeting {
    /// The frame of the connecting side, byte by byte.
    hello: Vec<u8>,
    nonce: Nonce,
}

impl Meeting {
    /// `hello` is the whole frame, `nonce` that of the accepting side.
    pub(super) fn new(hello: Vec<u8>, nonce: Nonce) -> Self {
        Self { hello, nonce }
    }

    /// The bytes that a proof signs.
    fn text(&self, role: Role) -> Vec<u8> {
        let role: &[u8] = match role {
            Role::Connects => b"tidemesh 1 connects",
            Role::Accepts => b"tidemesh 1 accepts ",
        };
        // Role and nonce have fixed lengths, so the text has only one reading.
        [role, &self.hello, &self.nonce].concat()
    }

    /// The proof that one side sends.
    pub(super) fn proof(&self, role: Role, secret: &Secret) -> [u8; PROOF] {
        let tag = hmac::sign(&secret.0, &self.text(role));
        let mut proof = [0; PROOF];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether the other side's proof is valid.
    ///
    /// The comparison takes the same time wherever the first wrong byte is (`ring::hmac::verify`).
    pub(super) fn proves(&self, role: Role, proof: &[u8], secret: &Secret) -> bool {
        hmac::verify(&secret.0, &self.text(role), proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_its_role_secret_hello_and_nonce_alone() {
        let (secret, other) = (Secret::new("one secret"), Secret::new("another secret"));
        let meeting = Meeting::new(b"hello".to_vec(), [1; 32]);
        let proof = meeting.proof(Role::Connects, &secret);
        assert!(meeting.proves(Role::Connects, &proof, &secret));
        assert!(!meeting.proves(Role::Accepts, &proof, &secret));
        assert!(!meeting.proves(Role::Connects, &proof, &other));
        assert!(!meeting.proves(Role::Connects, &proof[..31], &secret));
        for other in [
            Meeting::new(b"hellO".to_vec(), [1; 32]),
            Meeting::new(b"hello".to_vec(), [2; 32]),
        ] {
            assert!(!other.proves(Role::Connects, &proof, &secret));
        }
    }

    #[test]
    fn programs_differ_when_a_part_does() {
        let one = program(&["1.0", "SELECT"]);
        assert_eq!(one, program(&["1.0", "SELECT"]));
        assert_ne!(one, program(&["1.0S", "ELECT"]));
        assert_eq!(one.len(), 32);
    }

    #[test]
    fn the_longest_hello_fits() {
        let identity = Identity {
            job: "j".repeat(64),
            generation: u64::MAX,
            program: program(&[]),
            process: usize::MAX,
            processes: usize::MAX,
            threads: usize::MAX,
        };
        let frame = Hello::new(&identity, usize::MAX, [255; 32])
            .frame()
            .unwrap();
        assert!(frame.len() <= LEAD + HELLO_BYTES_MAX, "{}", frame.len());
        let lead = frame[..LEAD].try_into().unwrap();
        assert_eq!(length(lead).unwrap(), frame.len() - LEAD);
    }
}
