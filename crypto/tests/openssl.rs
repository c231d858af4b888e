//! Private key files are exchanged with OpenSSL in both directions; where the program `openssl` is missing, nothing is
//! compared, and the test says so.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use quorate_crypto::SigningKey;

/// What `openssl` writes when it is given `input`; nothing if there is no such program.
fn openssl(arguments: &[&str], input: &str) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(skip()),
        spawned => spawned?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "openssl {arguments:?}: {}", output.status);
    Ok(Some(output.stdout))
}

/// Says, past the capture of the test's output, that nothing is compared.
fn skip() -> Option<Vec<u8>> {
    let said = writeln!(std::io::stderr(), "SKIPPED: there is no program `openssl`: no private key file was exchanged");
    said.ok().and(None)
}

#[test]
fn openssl_reads_our_private_key_files() -> Result<(), Box<dyn Error>> {
    let key = SigningKey::from_seed([42; 32]);
    let pem = key.to_pkcs8_pem()?;
    if let Some(public_der) = openssl(&["pkey", "-pubout", "-outform", "DER"], &pem)? {
        assert!(public_der.ends_with(key.public_key().as_bytes()));
    }
    Ok(())
}

#[test]
fn we_read_the_private_key_files_of_openssl() -> Result<(), Box<dyn Error>> {
    if let Some(pem) = openssl(&["genpkey", "-algorithm", "ed25519"], "")? {
        let pem = String::from_utf8(pem)?;
        let key = SigningKey::from_pkcs8_pem(&pem)?;
        assert_eq!(*key.to_pkcs8_pem()?, pem);
    }
    Ok(())
}
