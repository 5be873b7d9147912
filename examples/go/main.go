// Deletes a workspace, if a person has approved exactly that.
//
// usage: gated AUTHORITY TOKEN_FILE WORKSPACE     (AUTHORITY: https://HOST:PORT, or http://HOST:PORT on this machine)
//
// Exit codes: 0 let through and done; 1 let through and failed; 2 usage; 3 held, a person has been asked; 5 denied; 7 held
// for want of an answer.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/protobuf/types/known/structpb"

	pb "example.com/gated/approvalsv1"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: gated AUTHORITY TOKEN_FILE WORKSPACE")
		os.Exit(2)
	}
	connection, err := connect(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(deleteWorkspace(context.Background(), NewGate(connection, os.Args[2]), os.Args[3]))
}

func connect(authority string) (*grpc.ClientConn, error) {
	at, err := url.Parse(authority)
	if err != nil {
		return nil, err
	}
	// Without TLS the token goes no further than this machine: local credentials refuse to.
	transport := local.NewCredentials()
	switch at.Scheme {
	case "https":
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	case "http":
	default:
		return nil, fmt.Errorf("%s: must be https://HOST:PORT, or http on this machine", authority)
	}
	return grpc.NewClient(at.Host, grpc.WithTransportCredentials(transport))
}

func deleteWorkspace(ctx context.Context, gate *Gate, workspace string) int {
	approval, err := gate.Require(ctx, &pb.RequireApprovalRequest{
		WorkspaceId: workspace,
		Action:      "delete_workspace",
		Reason:      "nobody has used it since May",
		Context: &structpb.Struct{Fields: map[string]*structpb.Value{
			"with_backups": structpb.NewBoolValue(true),
		}},
	})
	if err != nil {
		fmt.Println(err)
		switch {
		case errors.Is(err, ErrPending):
			return 3
		case errors.Is(err, ErrDenied):
			return 5
		}
		return 7
	}
	// No error: it may be done now, once. To do it again, ask again.
	result, code := pb.Result_RESULT_SUCCEEDED, 0
	if err := remove(workspace); err != nil {
		fmt.Println(err)
		result, code = pb.Result_RESULT_FAILED, 1
	}
	if err := gate.Report(ctx, approval, result); err != nil {
		fmt.Fprintln(os.Stderr, "what became of it is not on record:", err)
	}
	return code
}

func remove(workspace string) error {
	fmt.Println("deleted", workspace)
	return nil
}
