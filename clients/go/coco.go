package tipserve

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	pb "github.com/tipserve/tipserve/clients/go/tipservepb"
)

// ReasonSeveralCategories: a picture is annotated with several categories.
const ReasonSeveralCategories = "SEVERAL_CATEGORIES"

// annotations are COCO's; ids are numbers or texts.
type annotations struct {
	Images []struct {
		ID   json.RawMessage `json:"id"`
		File *string         `json:"file_name"`
	} `json:"images"`
	Annotations []struct {
		Image    json.RawMessage `json:"image_id"`
		Category json.RawMessage `json:"category_id"`
	} `json:"annotations"`
	Categories []struct {
		ID   json.RawMessage `json:"id"`
		Name string          `json:"name"`
	} `json:"categories"`
}

// fromCOCO lists the annotated pictures. A picture without annotations is no
// example; one with several categories is rejected by its id: which of them it
// shows is not to be guessed.
func fromCOCO(text []byte, path string) ([]Example, []*pb.ClassSpec, error) {
	var read annotations
	// By their own names: to encoding/json "Images" would be "images".
	var parts map[string]json.RawMessage
	err := json.Unmarshal(text, &parts)
	for name, part := range map[string]any{
		"images": &read.Images, "annotations": &read.Annotations, "categories": &read.Categories} {
		if found := parts[name]; err == nil && found != nil {
			err = json.Unmarshal(found, part)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("it is no COCO file: %w", err)
	}
	if err := checkJSON(text); err != nil {
		return nil, nil, fmt.Errorf("it holds %w", err)
	}
	if read.Images == nil || read.Annotations == nil || read.Categories == nil {
		return nil, nil, errors.New("it is no COCO file: it needs images, annotations and categories")
	}
	files, places := map[string]string{}, map[string]int{}
	for _, one := range read.Images {
		if one.ID == nil || one.File == nil {
			return nil, nil, errors.New("one of its images lacks id or file_name")
		}
		if _, twice := files[string(one.ID)]; twice {
			return nil, nil, fmt.Errorf("two of its images have the id %s", one.ID)
		}
		files[string(one.ID)] = *one.File
	}
	var classes []*pb.ClassSpec
	for i, one := range read.Categories {
		if one.ID == nil {
			return nil, nil, errors.New("one of its categories lacks an id")
		}
		if _, twice := places[string(one.ID)]; twice {
			return nil, nil, fmt.Errorf("two of its categories have the id %s", one.ID)
		}
		if className(one.Name) == "" {
			return nil, nil, fmt.Errorf("its category %s has no name", one.ID)
		}
		places[string(one.ID)] = i
		classes = append(classes, &pb.ClassSpec{DisplayName: className(one.Name)})
	}
	var order []string
	found := map[string][]int{}
	for _, one := range read.Annotations {
		file, known := files[string(one.Image)]
		class, ok := places[string(one.Category)]
		if !known || !ok {
			return nil, nil, fmt.Errorf("an annotation names the category %s or the image %s, which is not there",
				one.Category, one.Image)
		}
		if found[file] == nil {
			order = append(order, file)
		}
		if !slices.Contains(found[file], class) {
			found[file] = append(found[file], class)
		}
	}
	first := ""
	if len(read.Images) > 0 {
		first = *read.Images[0].File
	}
	folder, err := cocoFolder(path, first)
	if err != nil {
		return nil, nil, err
	}
	examples := make([]Example, 0, len(order))
	for _, file := range order {
		categories := found[file]
		slices.Sort(categories)
		first := categories[0]
		example := Example{
			Class: classes[first].GetDisplayName(), ClassIndex: first, ID: readable(file)}
		if len(categories) == 1 {
			example.Picture = FromFile(beside(folder, file))
		} else {
			example.Picture = severalCategories(file, categories, classes)
		}
		examples = append(examples, example)
	}
	return examples, classes, nil
}

// severalCategories stands in for a picture that shows more than one.
func severalCategories(file string, categories []int, classes []*pb.ClassSpec) Picture {
	var names []string
	for _, class := range categories {
		names = append(names, classes[class].GetDisplayName())
	}
	err := invalid(ReasonSeveralCategories,
		"%s is annotated with %d categories (%s): crop its objects first, or list it once",
		readable(file), len(names), strings.Join(names, ", "))
	return FromFunc(func() ([]byte, error) { return nil, err })
}

// cocoFolder is where the pictures lie, by where the first one is.
func cocoFolder(path, first string) (string, error) {
	here := filepath.Dir(path)
	above := filepath.Join(here, "..")
	// instances_val2017.json, val2017/
	stem := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	split := stem[strings.LastIndex(stem, "_")+1:]
	for _, folder := range []string{
		here, filepath.Join(here, "images"), above, filepath.Join(above, split),
		filepath.Join(above, "images"), filepath.Join(above, "images", split),
	} {
		if status, err := os.Stat(filepath.Join(folder, first)); first != "" && err == nil && status.Mode().IsRegular() {
			return folder, nil
		}
	}
	return "", fmt.Errorf("its first picture, %q, is not beside it, nor in images/ or %s/", first, split)
}
