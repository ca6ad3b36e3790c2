//! What reaches the upstream of a request, and the client of an answer.

mod random; // ten thousand requests, compared byte for byte
