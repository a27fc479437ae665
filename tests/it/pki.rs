//! What tests of TLS and identities need: authorities, certificates in a folder, issuers of tokens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use undertone::config::Settings;
use undertone::server::identity::TokenHash;
use undertone::wire::v1::emotion_service_client::EmotionServiceClient;

use crate::support::data;

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// For a server on this machine.
    pub(crate) fn server(&self) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client with these names.
    pub(crate) fn client(&self, common_name: &str, dns: &[&str], uris: &[&str]) -> Pair {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.distinguished_name.push(DnType::CommonName, common_name);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// A folder with `tls.crt`, `tls.key`, `ca.crt` and `identities.yaml`.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new("test") };
        site.install(&site.authority.server());
        site.write("ca.crt", &site.authority.pem());
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file as a whole, as secret stores do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let fresh = self.path(&format!(".{name}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.path(name)).unwrap();
    }

    pub(crate) fn install(&self, pair: &Pair) {
        self.write("tls.crt", &pair.certificate);
        self.write("tls.key", &pair.key);
    }

    /// Makes a server speak TLS with these files, and look at them often.
    pub(crate) fn tls(&self, settings: &mut Settings) {
        settings.tls_certificate = self.path("tls.crt");
        settings.tls_key = self.path("tls.key");
        settings.tls_reload = crate::support::ms(50);
    }

    /// Makes a server ask for clients' certificates.
    pub(crate) fn client_ca(&self, settings: &mut Settings) {
        self.tls(settings);
        settings.tls_client_ca = self.path("ca.crt");
    }

    /// Makes a server know these identities: YAML behind the line with the schema.
    pub(crate) fn identities(&self, settings: &mut Settings, text: &str) {
        self.write_identities(text);
        settings.identities = self.path("identities.yaml");
        settings.identities_reload = crate::support::ms(50);
    }

    pub(crate) fn write_identities(&self, text: &str) {
        self.write("identities.yaml", &format!("schema: undertone.identities/v1\n{text}"));
    }

    /// A connection over TLS that trusts this site's authority.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        client: Option<&Pair>,
    ) -> Result<Channel, tonic::transport::Error> {
        connect(address, &self.authority.pem(), client).await
    }
}

/// A connection over TLS that trusts `ca`.
pub(crate) async fn connect(
    address: SocketAddr,
    ca: &str,
    client: Option<&Pair>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(pair) = client {
        tls = tls.identity(pair.identity());
    }
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port())).unwrap();
    // The name is the certificate's, the address is what the server listens on.
    endpoint.tls_config(tls)?.connect_timeout(Duration::from_secs(20)).connect().await
}

/// The line of a file of identities for a token.
pub(crate) fn hash(token: &str) -> String {
    TokenHash::of(token).to_string()
}

/// Adds a header `authorization` to every call.
#[derive(Clone)]
pub(crate) struct Bearing(pub(crate) Option<String>);

impl Interceptor for Bearing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            let value = MetadataValue::try_from(value).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

pub(crate) type Caller = EmotionServiceClient<InterceptedService<Channel, Bearing>>;

/// A client that says `Bearer TOKEN`, or nothing.
pub(crate) fn caller(channel: Channel, token: Option<&str>) -> Caller {
    let value = token.map(|token| format!("Bearer {token}"));
    EmotionServiceClient::with_interceptor(channel, Bearing(value))
}

enum Key {
    Rsa(RsaKeyPair),
    /// RSA with the padding of RSASSA-PSS.
    Pss(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// Somebody who signs tokens.
pub(crate) struct Signer {
    pub(crate) id: String,
    key: Key,
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(&std::fs::read(data("jwt/rsa.pk8.der")).unwrap()).unwrap()
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn new(algorithm: &str, id: &str) -> Self {
        let random = SystemRandom::new();
        let key = match algorithm {
            "RS256" => Key::Rsa(rsa()),
            "PS256" => Key::Pss(rsa()),
            "ES256" => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
                Key::Ec(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
            }
            "EdDSA" => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Key::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
            }
            other => panic!("{other}"),
        };
        Self { id: id.to_owned(), key }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Rsa(_) => "RS256",
            Key::Pss(_) => "PS256",
            Key::Ec(_) => "ES256",
            Key::Ed(_) => "EdDSA",
        }
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Rsa(key) | Key::Pss(key) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": base64url(&public.n), "e": base64url(&public.e)})
            }
            Key::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)})
            }
            Key::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Pss(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id});
        self.token_with(&header, claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", base64url(&signature))
    }
}

/// Header and claims of a token, without a signature.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

/// A JWK Set of these.
pub(crate) fn jwks(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// Now, in the seconds of a token's claims.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() as i64
}
