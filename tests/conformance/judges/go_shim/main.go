// Command judge serves the script contract on Fabric's own Go shim, as a service with TLS both ways.
//
// What it does is in README.md of tests/conformance; the same contract is there on our runtime and on Fabric's Node shim.
package main

import (
	"log"
	"os"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

type judge struct{}

// Init has nothing to prepare.
func (judge) Init(shim.ChaincodeStubInterface) *peer.Response {
	return shim.Success(nil)
}

// Invoke runs one of three functions: run (a script), texts (the same, telling what failures say), status (an answer as given).
func (judge) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	function, arguments := stub.GetFunctionAndParameters()
	switch {
	case (function == "run" || function == "texts") && len(arguments) == 1:
		return runScript(stub, []byte(arguments[0]), function == "texts")
	case function == "status" && len(arguments) == 4:
		return answerAsGiven(stub, arguments)
	}
	return &peer.Response{Status: 400, Message: "no such function"}
}

func main() {
	server := &shim.ChaincodeServer{
		CCID:    os.Getenv("CHAINCODE_ID"),
		Address: os.Getenv("CHAINCODE_SERVER_ADDRESS"),
		CC:      judge{},
		TLSProps: shim.TLSProperties{
			Key:           read("CHAINCODE_TLS_KEY"),
			Cert:          read("CHAINCODE_TLS_CERT"),
			ClientCACerts: read("CHAINCODE_CLIENT_CA_CERT"),
		},
	}
	log.Fatal(server.Start())
}

func read(variable string) []byte {
	content, err := os.ReadFile(os.Getenv(variable))
	if err != nil {
		log.Fatal(err)
	}
	return content
}
