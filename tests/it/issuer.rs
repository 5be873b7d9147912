//! Issuers of the tests' own: keys, the tokens that they sign, and a server for the keys.

use std::sync::{Arc, LazyLock, Mutex};

use approval_authority::auth::jwks::KeySet;
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A key that signs.
pub enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// An RSA key: it takes long to make one.
pub static RSA: LazyLock<Key> =
    LazyLock::new(|| Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")));

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    pub fn ec() -> Self {
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        Self::Ec(EcdsaKeyPair::generate(algorithm).expect("a key"))
    }

    pub fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().expect("a key"))
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// The public half, as an issuer publishes it.
    pub fn jwk(&self, id: &str) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let modulus = encoded(public.modulus().big_endian_without_leading_zero());
                let exponent = encoded(public.exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": modulus, "e": exponent})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key())})
            }
        };
        jwk["kid"] = json!(id);
        jwk
    }

    /// Signs a header and claims, whatever they are.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let text = format!("{}.{}", encoded(header), encoded(claims));
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let how = &signature::RSA_PKCS1_SHA256;
                pair.sign(how, &SystemRandom::new(), text.as_bytes(), &mut signature)
                    .expect("signed");
                signature
            }
            Self::Ec(pair) => {
                pair.sign(&SystemRandom::new(), text.as_bytes()).expect("signed").as_ref().to_vec()
            }
            Self::Ed(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", encoded(signature))
    }

    /// A token of this key, which an issuer knows by that id.
    pub fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": id, "typ": "JWT"});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

/// A set as an issuer publishes it.
pub fn published(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The same, as it is read.
pub fn key_set(keys: &[Value]) -> KeySet {
    KeySet::parse(published(keys).as_bytes()).expect("a set")
}

/// A server that publishes keys, on loopback.
pub struct JwksServer {
    pub url: String,
    answer: Arc<Mutex<Option<String>>>,
    fetches: watch::Receiver<usize>,
}

impl JwksServer {
    pub async fn new(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let answer = Arc::new(Mutex::new(Some(published(keys))));
        let (count, fetches) = watch::channel(0);
        let current = answer.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let answer = current.lock().expect("no panic").clone();
                count.send_modify(|count| *count += 1);
                if let Some(json) = answer {
                    reply(socket, &json).await;
                }
            }
        });
        Self { url, answer, fetches }
    }

    pub fn publish(&self, keys: &[Value]) {
        self.answer_with(&published(keys));
    }

    pub fn answer_with(&self, text: &str) {
        *self.answer.lock().expect("no panic") = Some(text.to_owned());
    }

    /// Whoever connects is hung up on.
    pub fn go_away(&self) {
        *self.answer.lock().expect("no panic") = None;
    }

    /// How often somebody has come for the keys.
    pub fn fetches(&self) -> usize {
        *self.fetches.borrow()
    }

    /// Waits until somebody has come so many times more.
    pub async fn fetched_again(&self, times: usize) {
        let mut fetches = self.fetches.clone();
        let before = *fetches.borrow();
        let more = fetches.wait_for(|count| *count >= before + times);
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, more).await.expect("fetched").expect("running");
    }
}

async fn reply(mut socket: TcpStream, json: &str) {
    let mut request = BufReader::new(&mut socket).lines();
    while let Ok(Some(line)) = request.next_line().await {
        if line.is_empty() {
            break;
        }
    }
    let length = json.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // Who does not wait for the answer does without.
    let _ = socket.write_all(format!("{head}{json}").as_bytes()).await;
}
