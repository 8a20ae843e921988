package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/cid"
	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/statebased"
	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/queryresult"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// script runs the operations of one transaction. An operation is a list: its name, then its arguments.
type script struct {
	stub  shim.ChaincodeStubInterface
	texts bool
}

// operation gives a result that JSON can hold; bytes are written in hexadecimal.
type operation func(*script, arguments) (any, error)

var operations map[string]operation

func init() { // not a literal: batch runs operations itself
	operations = map[string]operation{
		"get":      func(s *script, a arguments) (any, error) { return value(s.stub.GetState(a.text(0))) },
		"gets":     func(s *script, a arguments) (any, error) { return values(s.stub.GetMultipleStates(a.texts(0)...)) },
		"put":      func(s *script, a arguments) (any, error) { return done(s.stub.PutState(a.text(0), []byte(a.text(1)))) },
		"del":      func(s *script, a arguments) (any, error) { return done(s.stub.DelState(a.text(0))) },
		"put_many": putMany,
		"range": func(s *script, a arguments) (any, error) {
			return rows(a.number(2))(s.stub.GetStateByRange(a.text(0), a.text(1)))
		},
		"page": func(s *script, a arguments) (any, error) {
			return page(s.stub.GetStateByRangeWithPagination(a.text(0), a.text(1), int32(a.number(2)), a.text(3)))
		},
		"put_composite": putComposite,
		"split":         split,
		"partial": func(s *script, a arguments) (any, error) {
			return rows(a.number(2))(s.stub.GetStateByPartialCompositeKey(a.text(0), a.texts(1)))
		},
		"partial_page": func(s *script, a arguments) (any, error) {
			return page(s.stub.GetStateByPartialCompositeKeyWithPagination(
				a.text(0), a.texts(1), int32(a.number(2)), a.text(3)))
		},
		"all_composite_page": func(s *script, a arguments) (any, error) {
			return page(s.stub.GetAllStatesCompositeKeyWithPagination(int32(a.number(0)), a.text(1)))
		},
		"history": history,
		"query":   func(s *script, a arguments) (any, error) { return rows(0)(s.stub.GetQueryResult(a.text(0))) },
		"query_page": func(s *script, a arguments) (any, error) {
			return page(s.stub.GetQueryResultWithPagination(a.text(0), int32(a.number(1)), a.text(2)))
		},

		"pget": func(s *script, a arguments) (any, error) {
			return value(s.stub.GetPrivateData(a.text(0), a.text(1)))
		},
		"pgets": func(s *script, a arguments) (any, error) {
			return values(s.stub.GetMultiplePrivateData(a.text(0), a.texts(1)...))
		},
		"phash": func(s *script, a arguments) (any, error) {
			return value(s.stub.GetPrivateDataHash(a.text(0), a.text(1)))
		},
		"pput": func(s *script, a arguments) (any, error) {
			return done(s.stub.PutPrivateData(a.text(0), a.text(1), []byte(a.text(2))))
		},
		"pput_transient": putTransient,
		"pdel": func(s *script, a arguments) (any, error) {
			return done(s.stub.DelPrivateData(a.text(0), a.text(1)))
		},
		"ppurge": func(s *script, a arguments) (any, error) {
			return done(s.stub.PurgePrivateData(a.text(0), a.text(1)))
		},
		"prange": func(s *script, a arguments) (any, error) {
			return rows(a.number(3))(s.stub.GetPrivateDataByRange(a.text(0), a.text(1), a.text(2)))
		},
		"ppartial": func(s *script, a arguments) (any, error) {
			return rows(a.number(3))(s.stub.GetPrivateDataByPartialCompositeKey(a.text(0), a.text(1), a.texts(2)))
		},
		"pquery": func(s *script, a arguments) (any, error) {
			return rows(0)(s.stub.GetPrivateDataQueryResult(a.text(0), a.text(1)))
		},

		"policy": func(s *script, a arguments) (any, error) {
			return value(s.stub.GetStateValidationParameter(a.text(0)))
		},
		"set_policy": func(s *script, a arguments) (any, error) {
			return withPolicy(a, 1, func(policy []byte) error {
				return s.stub.SetStateValidationParameter(a.text(0), policy)
			})
		},
		"ppolicy": func(s *script, a arguments) (any, error) {
			return value(s.stub.GetPrivateDataValidationParameter(a.text(0), a.text(1)))
		},
		"set_ppolicy": func(s *script, a arguments) (any, error) {
			return withPolicy(a, 2, func(policy []byte) error {
				return s.stub.SetPrivateDataValidationParameter(a.text(0), a.text(1), policy)
			})
		},

		"event":  func(s *script, a arguments) (any, error) { return done(s.stub.SetEvent(a.text(0), []byte(a.text(1)))) },
		"invoke": invoke,
		"peer":   func(*script, arguments) (any, error) { return shim.GetMSPID() },
		"batch":  batch,
		"facts":  facts,
		"input":  input,
		"client": client,
	}
}

func runScript(stub shim.ChaincodeStubInterface, content []byte, texts bool) *peer.Response {
	var steps []arguments
	if err := json.Unmarshal(content, &steps); err != nil {
		return &peer.Response{Status: 400, Message: "no script"}
	}
	s := &script{stub: stub, texts: texts}
	return shim.Success(encode(s.run(steps)))
}

func (s *script) run(steps []arguments) []any {
	results := []any{}
	for _, step := range steps {
		results = append(results, s.result(step))
	}
	return results
}

func (s *script) result(step arguments) any {
	run, known := operations[step.text(0)]
	if !known {
		return s.failure(errors.New("no such operation"))
	}
	found, err := run(s, step[1:])
	if err != nil {
		return s.failure(err)
	}
	return found
}

func (s *script) failure(err error) any {
	if s.texts {
		return map[string]any{"error": err.Error()}
	}
	return map[string]any{"error": true}
}

// answerAsGiven answers with status, message and payload, after setting the event that is named.
func answerAsGiven(stub shim.ChaincodeStubInterface, given []string) *peer.Response {
	status, err := strconv.Atoi(given[0])
	if err != nil {
		return &peer.Response{Status: 400, Message: "no status"}
	}
	if given[3] != "" {
		if err := stub.SetEvent(given[3], []byte("payload of "+given[3])); err != nil {
			return shim.Error(err.Error())
		}
	}
	return &peer.Response{Status: int32(status), Message: given[1], Payload: []byte(given[2])}
}

// --- operations that take more than a line

func putMany(s *script, a arguments) (any, error) {
	for number := range a.number(1) {
		if err := s.stub.PutState(fmt.Sprintf("%s%04d", a.text(0), number), []byte(a.text(2))); err != nil {
			return nil, err
		}
	}
	return true, nil
}

func putComposite(s *script, a arguments) (any, error) {
	key, err := s.stub.CreateCompositeKey(a.text(0), a.texts(1))
	if err != nil {
		return nil, err
	}
	return done(s.stub.PutState(key, []byte(a.text(2))))
}

func split(s *script, a arguments) (any, error) {
	key, err := s.stub.CreateCompositeKey(a.text(0), a.texts(1))
	if err != nil {
		return nil, err
	}
	objectType, attributes, err := s.stub.SplitCompositeKey(key)
	if err != nil {
		return nil, err
	}
	written := []any{}
	for _, attribute := range attributes {
		written = append(written, hex.EncodeToString([]byte(attribute)))
	}
	return map[string]any{"type": hex.EncodeToString([]byte(objectType)), "attributes": written}, nil
}

func putTransient(s *script, a arguments) (any, error) {
	transient, err := s.stub.GetTransient()
	if err != nil {
		return nil, err
	}
	return done(s.stub.PutPrivateData(a.text(0), a.text(1), transient[a.text(2)]))
}

func history(s *script, a arguments) (any, error) {
	iterator, err := s.stub.GetHistoryForKey(a.text(0))
	if err != nil {
		return nil, err
	}
	found := []any{}
	for iterator.HasNext() {
		row, err := iterator.Next()
		if err != nil {
			return nil, err
		}
		var content any
		if !row.IsDelete {
			content = hex.EncodeToString(row.Value)
		}
		found = append(found, []any{row.TxId, content, row.Timestamp.AsTime().UnixNano()})
	}
	return found, iterator.Close()
}

func invoke(s *script, a arguments) (any, error) {
	called := [][]byte{}
	for _, argument := range a.texts(1) {
		called = append(called, []byte(argument))
	}
	response := s.stub.InvokeChaincode(a.text(0), called, a.text(2))
	found := map[string]any{"status": response.Status, "payload": hex.EncodeToString(response.Payload)}
	if response.Status == shim.ERROR && response.Message == "" { // the call failed: this shim puts the peer's words there
		return nil, errors.New(string(response.Payload))
	}
	found["message"] = response.Message
	return found, nil
}

func batch(s *script, a arguments) (any, error) {
	var steps []arguments
	if err := json.Unmarshal(a[0], &steps); err != nil {
		return nil, err
	}
	s.stub.StartWriteBatch()
	results := s.run(steps)
	if err := s.stub.FinishWriteBatch(); err != nil {
		return nil, err
	}
	return results, nil
}

func facts(s *script, _ arguments) (any, error) {
	timestamp, err := s.stub.GetTxTimestamp()
	if err != nil {
		return nil, err
	}
	creator, err := s.stub.GetCreator()
	if err != nil {
		return nil, err
	}
	binding, err := s.stub.GetBinding()
	if err != nil {
		return nil, err
	}
	transient, err := s.stub.GetTransient()
	if err != nil {
		return nil, err
	}
	given := []any{}
	for _, argument := range s.stub.GetArgs() {
		given = append(given, hex.EncodeToString(argument))
	}
	return map[string]any{
		"arguments": given,
		"binding":   hex.EncodeToString(binding),
		"channel":   s.stub.GetChannelID(),
		"creator":   digest(creator),
		"timestamp": timestamp.AsTime().UnixNano(),
		"transient": byName(transient),
		"tx_id":     s.stub.GetTxID(),
	}, nil
}

func input(s *script, _ arguments) (any, error) {
	proposal, err := s.stub.GetSignedProposal()
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"decorations": byName(s.stub.GetDecorations()),
		"proposal":    digest(proposal.ProposalBytes),
		"signature":   digest(proposal.Signature),
	}, nil
}

func client(s *script, a arguments) (any, error) {
	id, err := cid.GetID(s.stub)
	if err != nil {
		return nil, err
	}
	mspID, err := cid.GetMSPID(s.stub)
	if err != nil {
		return nil, err
	}
	attribute, found, err := cid.GetAttributeValue(s.stub, a.text(0))
	if err != nil {
		return nil, err
	}
	result := map[string]any{"id": id, "msp_id": mspID, "attribute": nil}
	if found {
		result["attribute"] = attribute
	}
	return result, nil
}

// withPolicy hands on a policy: that of all peers of the organisations named, or bytes in hexadecimal.
func withPolicy(a arguments, index int, set func([]byte) error) (any, error) {
	var organizations []string
	if json.Unmarshal(a[index], &organizations) != nil {
		policy, err := hex.DecodeString(a.text(index))
		if err != nil {
			return nil, err
		}
		return done(set(policy))
	}
	builder, err := statebased.NewStateEP(nil)
	if err != nil {
		return nil, err
	}
	if err := builder.AddOrgs(statebased.RoleTypePeer, organizations...); err != nil {
		return nil, err
	}
	policy, err := builder.Policy()
	if err != nil {
		return nil, err
	}
	return done(set(policy))
}

// --- results

func done(err error) (any, error) {
	return true, err
}

func value(content []byte, err error) (any, error) {
	if err != nil || len(content) == 0 {
		return nil, err
	}
	return hex.EncodeToString(content), nil
}

func values(contents [][]byte, err error) (any, error) {
	found := []any{}
	for _, content := range contents {
		written, _ := value(content, nil)
		found = append(found, written)
	}
	return found, err
}

// rows reads an iterator: all of it, or as many rows as the limit says, which leaves the rest unread.
func rows(limit int) func(shim.StateQueryIteratorInterface, error) (any, error) {
	return func(iterator shim.StateQueryIteratorInterface, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		found := []any{}
		for (limit == 0 || len(found) < limit) && iterator.HasNext() {
			row, err := iterator.Next()
			if err != nil {
				return nil, err
			}
			found = append(found, entry(row))
		}
		return found, iterator.Close()
	}
}

func page(iterator shim.StateQueryIteratorInterface, metadata *peer.QueryResponseMetadata, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	found, err := rows(0)(iterator, nil)
	if err != nil {
		return nil, err
	}
	bookmark := hex.EncodeToString([]byte(metadata.Bookmark))
	return map[string]any{"rows": found, "bookmark": bookmark, "fetched": metadata.FetchedRecordsCount}, nil
}

func entry(row *queryresult.KV) any {
	return []any{hex.EncodeToString([]byte(row.Key)), hex.EncodeToString(row.Value)}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func byName(contents map[string][]byte) map[string]any {
	found := map[string]any{}
	for name, content := range contents {
		found[name] = hex.EncodeToString(content)
	}
	return found
}

func encode(result any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result); err != nil {
		panic(err) // results are made here, of what JSON can hold
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
}

// --- arguments

// arguments of an operation; what is missing or of another kind reads as empty: scripts are ours.
type arguments []json.RawMessage

func (a arguments) text(index int) string {
	var found string
	a.read(index, &found)
	return found
}

func (a arguments) texts(index int) []string {
	found := []string{}
	a.read(index, &found)
	return found
}

func (a arguments) number(index int) int {
	var found int
	a.read(index, &found)
	return found
}

func (a arguments) read(index int, into any) {
	if index < len(a) {
		_ = json.Unmarshal(a[index], into)
	}
}
