// Command ferretdb is FerretDB with its SQLite backend, listening on loopback: a second real server for the tests.
// Embedded like this it has no telemetry: FerretDB's own program would report, and ferretdb.New turns even the option off.
//
// In front of it stands a gate that lets one command through at a time. FerretDB 1.24 reads a document and writes it
// back in two steps with nothing to hold them together: without the gate, 60 tasks claimed with findAndModify by six
// clients are claimed 141 times.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

const (
	headerBytes     = 16
	maxMessageBytes = 48_000_000 + headerBytes
	opMsg           = 2013
	moreToCome      = 2 // the OP_MSG flag of a client that wants no answer
)

// gate passes messages between clients and the backend, one command at a time over all connections.
type gate struct {
	backend string
	one     sync.Mutex
}

func main() {
	port := flag.Int("port", 0, "TCP port on 127.0.0.1")
	directory := flag.String("directory", "", "folder of the databases")
	flag.Parse()
	if *port == 0 || *directory == "" {
		log.Fatal("ferretdb: --port and --directory are needed")
	}
	folder, err := filepath.Abs(*directory)
	if err != nil {
		log.Fatal(err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Handler:   "sqlite",
		SQLiteURL: "file:" + folder + "/",
	})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()

	uri, err := url.Parse(server.MongoDBURI())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	log.Printf("ferretdb: ready on %s", listener.Addr())

	g := &gate{backend: uri.Host}
	for {
		client, err := listener.Accept()
		if err != nil {
			break
		}
		go g.serve(ctx, client)
	}
	if err := <-done; err != nil {
		log.Fatal(err)
	}
}

// serve ends with the client, the backend or the context, whichever goes first.
func (g *gate) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	backend, err := net.Dial("tcp", g.backend)
	if err != nil {
		log.Print(err)
		return
	}
	defer backend.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); backend.Close() })()

	for {
		command, err := readMessage(client)
		if err != nil {
			return
		}
		reply, err := g.ask(backend, command)
		if err != nil {
			return
		}
		if wantsNoReply(command) {
			continue // FerretDB answers all the same
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}

func (g *gate) ask(backend net.Conn, command []byte) ([]byte, error) {
	g.one.Lock()
	defer g.one.Unlock()
	if _, err := backend.Write(command); err != nil {
		return nil, err
	}
	return readMessage(backend)
}

func wantsNoReply(message []byte) bool {
	if binary.LittleEndian.Uint32(message[12:]) != opMsg || len(message) < headerBytes+4 {
		return false
	}
	return binary.LittleEndian.Uint32(message[headerBytes:])&moreToCome != 0
}

func readMessage(from io.Reader) ([]byte, error) {
	header := make([]byte, headerBytes)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header)
	if length < headerBytes || length > maxMessageBytes {
		return nil, fmt.Errorf("a message of %d bytes", length)
	}
	message := make([]byte, length)
	copy(message, header)
	_, err := io.ReadFull(from, message[headerBytes:])
	return message, err
}
