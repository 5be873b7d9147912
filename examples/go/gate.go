package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "example.com/gated/approvalsv1"
)

var (
	// ErrPending: a person has been asked. Tell your caller, and ask again later with the same arguments.
	ErrPending = errors.New("pending")
	// ErrDenied: a person said no. Tell your caller; asking again is no use before the cooldown has passed.
	ErrDenied = errors.New("denied")
	// ErrUnavailable: the authority's word could not be had, or not be relied upon. Asking again later may help.
	ErrUnavailable = errors.New("unavailable")
)

// A Gate lets nobody through but on the authority's word. One does for a process.
type Gate struct {
	authority pb.ApprovalServiceClient
	tokenFile string
	deadline  time.Duration
}

// NewGate makes a gate. The authority need not be there yet: the connection is made when it is needed.
func NewGate(connection grpc.ClientConnInterface, tokenFile string) *Gate {
	return &Gate{pb.NewApprovalServiceClient(connection), tokenFile, 10 * time.Second}
}

// Require returns without an error where the operation may be executed now, once: with the approval that was
// consumed, or nil where the policy asks for none. Any error means "do not execute".
func (g *Gate) Require(ctx context.Context, operation *pb.RequireApprovalRequest) (*pb.Approval, error) {
	asked := proto.Clone(operation).(*pb.RequireApprovalRequest)
	// A key for this attempt, so that a lost answer can be asked for again. Never make it from the operation.
	var key [16]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	asked.IdempotencyKey = fmt.Sprintf("%x", key)
	var answer *pb.RequireApprovalResponse
	err := g.call(ctx, func(ctx context.Context) (err error) {
		answer, err = g.authority.RequireApproval(ctx, asked)
		return err
	})
	if err != nil {
		return nil, err
	}
	approval, outcome := answer.GetApproval(), answer.GetOutcome()
	switch {
	case outcome == pb.Outcome_OUTCOME_NOT_REQUIRED && approval == nil:
		return nil, nil
	case !isAbout(approval, asked):
		return nil, fmt.Errorf("%w: the answer is not about what was asked", ErrUnavailable)
	case outcome == pb.Outcome_OUTCOME_PENDING:
		return nil, fmt.Errorf("approval %s is %w", approval.GetId(), ErrPending)
	case outcome == pb.Outcome_OUTCOME_DENIED:
		return nil, fmt.Errorf("approval %s was %w", approval.GetId(), ErrDenied)
	case outcome == pb.Outcome_OUTCOME_APPROVED &&
		approval.GetState() == pb.ApprovalState_APPROVAL_STATE_CONSUMED &&
		approval.GetOnBehalfOf() == asked.GetOnBehalfOf():
		return approval, nil
	}
	return nil, fmt.Errorf("%w: outcome %v in state %v", ErrUnavailable, outcome, approval.GetState())
}

// isAbout compares where an approval lies, and all that its request_hash is made of.
func isAbout(approval *pb.Approval, asked *pb.RequireApprovalRequest) bool {
	namespace := asked.GetNamespace()
	if namespace == "" {
		namespace = "default"
	}
	sameContext := proto.Equal(approval.GetContext(), asked.GetContext()) ||
		len(approval.GetContext().GetFields())+len(asked.GetContext().GetFields()) == 0 // unset is empty
	return approval.GetId() != "" && approval.GetNamespace() == namespace && sameContext &&
		approval.GetWorkspaceId() == asked.GetWorkspaceId() && approval.GetAction() == asked.GetAction()
}

// Report puts on record what became of the operation. It was executed: an error here changes nothing about that.
func (g *Gate) Report(ctx context.Context, approval *pb.Approval, result pb.Result) error {
	if approval == nil {
		return nil
	}
	report := &pb.ReportResultRequest{
		Namespace: approval.GetNamespace(), ApprovalId: approval.GetId(), Result: result,
	}
	return g.call(ctx, func(ctx context.Context) error {
		_, err := g.authority.ReportResult(ctx, report)
		return err
	})
}

// call asks the same until there is an answer, or a refusal that would be repeated, or no time.
func (g *Gate) call(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, g.deadline)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := g.once(ctx, ask)
		switch status.Code(err) {
		case codes.OK:
			return nil
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		default:
			return fmt.Errorf("%w: %v", ErrUnavailable, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %v", ErrUnavailable, err)
		case <-time.After(pause/2 + time.Duration(mathrand.Int63n(int64(pause/2)))):
		}
	}
}

func (g *Gate) once(ctx context.Context, ask func(context.Context) error) error {
	// Read for each call: whoever renews the token replaces the file.
	token, err := os.ReadFile(g.tokenFile)
	if err != nil {
		return err
	}
	// Half of what is left: a server that swallows calls leaves time to ask again.
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, max(time.Until(end)/2, 500*time.Millisecond))
	defer cancel()
	return ask(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token))))
}
