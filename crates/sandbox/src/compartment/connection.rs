//! A client's connection to the control socket, as frames. Receiving may be abandoned at any point
//! and resumed, so it can stand in a `select!`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::frame::{self, FrameError, MAX_FDS, Message};

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Connection {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            fds: Vec::new(),
        }
    }

    /// The next frame and the descriptors that came with it.
    pub async fn receive<T: DeserializeOwned + Message>(
        &mut self,
    ) -> Result<(T, Vec<OwnedFd>), FrameError> {
        loop {
            if let Some(body) = self.take_body::<T>()? {
                return Ok((frame::decode(&body)?, std::mem::take(&mut self.fds)));
            }
            let mut chunk = [0; 4096];
            let socket = self.stream.as_raw_fd();
            let fds = &mut self.fds;
            let got = self
                .stream
                .async_io(Interest::READABLE, || {
                    frame::receive_with_fds(socket, &mut chunk, fds)
                })
                .await?;
            if got == 0 {
                let error = if self.received.is_empty() {
                    FrameError::Closed
                } else {
                    io::Error::from(io::ErrorKind::UnexpectedEof).into()
                };
                return Err(error);
            }
            if self.fds.len() > MAX_FDS {
                return Err(FrameError::Descriptors);
            }
            self.received
                .extend_from_slice(chunk.get(..got).unwrap_or_default());
        }
    }

    pub async fn send<T: Serialize + Message>(&mut self, value: &T) -> Result<(), FrameError> {
        Ok(self.stream.write_all(&frame::encode(value)?).await?)
    }

    fn take_body<T: Message>(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((header, rest)) = self.received.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = frame::body_length::<T>(*header)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.received.drain(..4 + length);
        Ok(Some(body))
    }
}
