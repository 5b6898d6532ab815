package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	service  = "/coordd.v1.EngagementService"
	medium   = 2
	critical = 4
	success  = 1
	// Longer than any answer should take; a call that meets it counts as failed.
	deadline = 20 * time.Second
)

// daemon is the daemon over several connections. Messages are written field by field: this program measures,
// and generated code for three messages would be the larger part of it.
type daemon struct {
	connections []*grpc.ClientConn
	next        atomic.Uint64
}

func dial(address string, count int) (*daemon, error) {
	d := &daemon{}
	for range count {
		connection, err := grpc.NewClient(
			address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
			// Retries would be load that nobody has counted.
			grpc.WithDisableRetry(),
		)
		if err != nil {
			return nil, err
		}
		d.connections = append(d.connections, connection)
	}
	return d, nil
}

func (d *daemon) call(method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var reply []byte
	connection := d.connections[d.next.Add(1)%uint64(len(d.connections))]
	err := connection.Invoke(ctx, service+method, request, &reply)
	return reply, err
}

// requestLock returns the fencing token of the lock that it takes.
func (d *daemon) requestLock(item, worker string, priority uint64, ttl time.Duration) (uint64, error) {
	request := text(text(text(nil, 1, item), 2, worker), 3, "analysis")
	if ttl > 0 {
		length := number(nil, 1, uint64(ttl/time.Second))
		request = protowire.AppendBytes(protowire.AppendTag(request, 4, protowire.BytesType), length)
	}
	request = number(request, 5, priority)
	lane := ""
	if priority == critical {
		// At the door of a busy daemon nobody reads the message.
		lane = ".Critical"
	}
	reply, err := d.call(lane+"/RequestLock", request)
	if err != nil {
		return 0, err
	}
	granted, ok := field(reply, 1).([]byte)
	if !ok {
		return 0, errors.New("not granted")
	}
	token, ok := field(granted, 4).(uint64)
	if !ok {
		return 0, errors.New("a lock without a token")
	}
	return token, nil
}

func (d *daemon) releaseLock(item, worker string, token uint64) error {
	request := number(number(text(text(nil, 1, item), 2, worker), 3, token), 4, success)
	_, err := d.call("/ReleaseLock", request)
	return err
}

func (d *daemon) renewLock(item, worker string, token uint64) error {
	_, err := d.call("/RenewLock", number(text(text(nil, 1, item), 2, worker), 3, token))
	return err
}

func text(message []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(message, field, protowire.BytesType), value)
}

func number(message []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(message, field, protowire.VarintType), value)
}

// field returns a field's bytes or number, or nil if it is not there.
func field(message []byte, wanted protowire.Number) any {
	for len(message) > 0 {
		found, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(found, kind, message)
		if size < 0 {
			return nil
		}
		if found == wanted {
			if kind == protowire.BytesType {
				value, _ := protowire.ConsumeBytes(message)
				return value
			}
			value, _ := protowire.ConsumeVarint(message)
			return value
		}
		message = message[size:]
	}
	return nil
}

// ending names how a call ended: "ok", "refused" (RESOURCE_EXHAUSTED that says when to come back), or else.
func ending(err error) string {
	if err == nil {
		return "ok"
	}
	s, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	if s.Code() == codes.ResourceExhausted {
		for _, detail := range s.Details() {
			if _, says := detail.(*errdetails.RetryInfo); says {
				return "refused"
			}
		}
	}
	return fmt.Sprintf("%s: %s", s.Code(), s.Message())
}

// raw hands bytes through.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (raw) Name() string { return "proto" }
